"""Whether a container image is in its registry, by the registry's HTTP API.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
"""

import base64
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request

_TIMEOUT_S = 20
_HUB, _HUB_API = "docker.io", "registry-1.docker.io"
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def split_reference(image: str) -> tuple[str, str, str]:
    """Returns registry, repository and the tag or digest of an image reference.

    >>> split_reference("europe-docker.pkg.dev/project/images/tfx-qat:0.1.0")
    ('europe-docker.pkg.dev', 'project/images/tfx-qat', '0.1.0')
    >>> split_reference("debian@sha256:0f")
    ('docker.io', 'library/debian', 'sha256:0f')
    """
    name, _, digest = image.partition("@")
    head, slash, rest = name.partition("/")
    is_host = slash and ("." in head or ":" in head or head == "localhost")
    registry, path = (head, rest) if is_host else (_HUB, name)
    repository, _, tag = path.partition(":")
    if registry == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository, digest or tag


def image_exists(image: str) -> bool:
    """Asks the registry for an image's manifest; with the user's own Google credentials where the registry is Google's.

    Returns:
      Whether it is there.

    Raises:
      PermissionError: If the registry does not say, without other credentials.
      OSError: If it does not answer.
    """
    registry, repository, reference = split_reference(image)
    host = _HUB_API if registry == _HUB else registry
    scheme = "http" if host.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    url = f"{scheme}://{host}/v2/{repository}/manifests/{reference}"
    headers = {"Accept": ", ".join(_MANIFESTS)}
    try:
        try:
            _head(url, headers)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return _exists_with_token(url, headers, error.headers.get("WWW-Authenticate", ""), registry)
            return _answer(error, registry)
    except (http.client.HTTPException, AttributeError, ValueError) as error:
        raise OSError(f"{registry} answers nothing that a registry would") from error
    return True


def _head(url: str, headers: dict[str, str]) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="HEAD"), timeout=_TIMEOUT_S):
        pass


def _answer(error: urllib.error.HTTPError, registry: str) -> bool:
    if error.code == 404:
        return False
    if error.code in (401, 403):
        raise PermissionError(f"{registry} does not say without credentials (HTTP {error.code})") from error
    raise error


def _exists_with_token(url: str, headers: dict[str, str], challenge: str, registry: str) -> bool:
    """Fetches the token that the registry's challenge asks for, and asks again."""
    fields = dict(_CHALLENGE.findall(challenge))
    realm = urllib.parse.urlsplit(fields.get("realm", ""))
    if not challenge.startswith("Bearer ") or realm.scheme not in ("http", "https"):
        raise PermissionError(f"{registry} does not say without credentials")
    query = urllib.parse.urlencode({name: fields[name] for name in ("service", "scope") if name in fields})
    request = urllib.request.Request(f"{fields['realm']}?{query}", headers=_google_credentials(realm))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
            answer = json.loads(reply.read())
        token = answer.get("token") or answer.get("access_token", "")
        _head(url, {**headers, "Authorization": f"Bearer {token}"})
    except urllib.error.HTTPError as error:
        return _answer(error, registry)
    return True


def _google_credentials(realm: urllib.parse.SplitResult) -> dict[str, str]:
    """The user's own, for hosts of Google's registries only, whoever named them.

    https://cloud.google.com/artifact-registry/docs/docker/authentication
    """
    host = realm.netloc
    is_google = host.endswith("-docker.pkg.dev") or host == "gcr.io" or host.endswith(".gcr.io")
    if realm.scheme != "https" or not is_google:
        return {}
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(google.auth.transport.requests.Request())
    except google.auth.exceptions.GoogleAuthError:
        return {}
    login = base64.b64encode(f"oauth2accesstoken:{credentials.token}".encode()).decode()
    return {"Authorization": f"Basic {login}"}
