"""The caller's environment variables that steps and model servers get.

Not all of them: a step that runs on a cluster gets none, and the caller's tokens are nobody else's
business. What finds programs, folders, certificates, proxies and devices goes along; a project that
needs more names it in ``pass_env``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_HANDED_ON = re.compile(
    # programs, the user, places
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TMPDIR|TEMP|TMP|XDG_\w+"
    # language and time
    r"|LANG|LANGUAGE|LC_\w+|TZ"
    # the network
    r"|(?:https?|no|all|ftp)_proxy|(?:HTTPS?|NO|ALL|FTP)_PROXY"
    r"|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    # devices, threads and libraries
    r"|CUDA_\w+|NVIDIA_\w+|ROCR?_\w+|HIP_\w+|HSA_\w+|OMP_\w+|MKL_\w+|OPENBLAS_\w+|NUMEXPR_\w+"
    r"|LD_LIBRARY_PATH|DYLD_\w+|JAVA_HOME"
    # Python's own switches that change no path
    r"|PYTHON(?:HASHSEED|UTF8|IOENCODING|WARNINGS|FAULTHANDLER)"
)


def handed_on(environ: Mapping[str, str], more: Sequence[str] = ()) -> dict[str, str]:
    """The variables of ``environ`` that a process of the project gets.

    Args:
        more: names that the project asks for besides.
    """
    return {
        name: value for name, value in environ.items() if _HANDED_ON.fullmatch(name) or name in more
    }
