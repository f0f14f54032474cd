package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// The node's S3 server asks for a key, and checks no signature.
const anyKey = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

func address(uri string) (string, error) {
	rest, ok := strings.CutPrefix(uri, "s3://")
	if !ok {
		return "", fmt.Errorf("%s: only s3:// is stored on this node", uri)
	}
	return os.Getenv("KFP_S3") + "/" + (&url.URL{Path: rest}).EscapedPath(), nil
}

// local is where an artifact is in the container.
func local(uri string) string {
	return "/s3/" + strings.TrimPrefix(uri, "s3://")
}

func put(uri string, data []byte) error {
	target, err := address(uri)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPut, target, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	_, err = send(request)
	return err
}

func fetch(uri string) ([]byte, error) {
	target, err := address(uri)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	return send(request)
}

func send(request *http.Request) ([]byte, error) {
	request.Header.Set("Authorization", anyKey)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s", request.Method, request.URL, answer.Status)
	}
	return data, err
}

// download fetches an artifact, a file or a folder; one of metadata only has neither.
func download(uri string) error {
	if data, err := fetch(uri); err == nil {
		return write(local(uri), data)
	}
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(uri, "s3://"), "/")
	query := url.Values{"list-type": {"2"}, "prefix": {prefix + "/"}}
	request, err := http.NewRequest(http.MethodGet, os.Getenv("KFP_S3")+"/"+bucket+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	data, err := send(request)
	if err != nil {
		return err
	}
	var found struct {
		Contents []struct{ Key string }
	}
	if err := xml.Unmarshal(data, &found); err != nil {
		return err
	}
	for _, one := range found.Contents {
		inner := "s3://" + bucket + "/" + one.Key
		data, err := fetch(inner)
		if err != nil {
			return err
		}
		if err := write(local(inner), data); err != nil {
			return err
		}
	}
	return nil
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o666)
}

// upload stores what is at an artifact's path: a file, a folder or nothing.
func upload(uri string) error {
	path := local(uri)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	return filepath.WalkDir(path, func(inner string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(inner)
		if err != nil {
			return err
		}
		return put(uri+strings.TrimPrefix(inner, path), data)
	})
}
