"""The steps' images: registries and builders."""
