"""Secrets out of text that leaves the machine or reaches a screen. Pure; errs on the side of hiding."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "***"

_WHOLE = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}"  # Hugging Face
    r"|\bapi_org_[A-Za-z0-9]{8,}"
    r"|\bsk-(?:[A-Za-z0-9]+-)*[A-Za-z0-9_-]{16,}"  # OpenAI and look-alikes
    r"|\bnvapi-[A-Za-z0-9_-]{16,}"  # NVIDIA NGC
    r"|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_[A-Za-z0-9_]{16,}"
    r"|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bASIA[0-9A-Z]{16}\b"  # AWS key ids
    r"|\bAIza[0-9A-Za-z_-]{30,}"  # Google
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"  # JSON web token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_URL = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://)[^/\s@'\"<>]+@")
_HEADER = re.compile(
    r"(?i)(?P<name>\b(?:proxy-)?authorization['\"]?\s*[:=]\s*['\"]?)(?P<kind>(?:bearer|basic|token|digest|negotiate)\s+)?"
    r"[^\s'\",;}\]]+"
)
_BEARER = re.compile(r"(?i)(?P<kind>\bbearer\s+)[A-Za-z0-9._~+/-]{8,}=*")
_SECRET_NAME = (
    r"(?:api[_-]?keys?|apikey|access[_-]?keys?|secret(?:[_-]?(?:access)?[_-]?keys?)?|private[_-]?keys?|auth[_-]?tokens?"
    r"|access[_-]?tokens?|hf[_-]?tokens?|hub[_-]?tokens?|[a-z0-9]+_tokens?|tokens?|passwords?|passwd|credentials?|x-api-key)"
)
_NAMED = re.compile(
    rf"(?i)(?P<name>(?<![A-Za-z0-9])[\w-]*?{_SECRET_NAME}(?![A-Za-z0-9_])['\"]?\s*(?:=|:|\s(?=--)?)\s*)"
    r"(?P<value>\[[^\]\n]*\]|'[^'\n]*'|\"[^\"\n]*\"|[^\s'\",;&)}\]]+)"
)
_FLAG = re.compile(rf"(?i)(?P<name>--[\w-]*{_SECRET_NAME}(?:\s+|=))(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\",]+)")
_QUERY = re.compile(
    r"(?i)(?P<name>[?&](?:token|key|api_key|apikey|access_token|sig|signature|x-amz-[a-z-]+|password)=)[^&\s'\"#]+"
)
_SECRET_ENV = re.compile(
    r"(?i)(?:TOKEN(?!S|IZ)|API_?KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE_?KEY|ACCESS_?KEY|AUTHORIZATION|COOKIE"
    r"|_AUTH$)"
)
_SECRET_FLAG = re.compile(rf"(?i)^--?[\w-]*?{_SECRET_NAME}$")
_HARMLESS_VALUE = re.compile(
    r"(?i)^[\[('\"]*(?:none|null|true|false|\d{1,7}(?:\.\d+)?|<[^>]*>|\$\{?\w+\}?|\*+|)[\])'\"]*$"
)
_COUNTS = re.compile(
    r"(?i)(?:max|num|min|total|batched|new|draft|spec\w*|prompt|completion|output|input|image|video|pad|bos|eos|stop|special|added"
    r"|vocab|cached?|kv|per|generated?|accepted|context|reserved|first|last|unk|mask|sep|cls|decode|prefill|skip|ignore"
    r"|return|hidden|n|of|stream)[_-]?\w*tokens?"
)


def redact(text: str) -> str:
    """`text` with tokens, keys, Authorization headers and URL credentials replaced by `***`."""
    text = _WHOLE.sub(MASK, text)
    if "://" in text:
        text = _URL.sub(rf"\g<scheme>{MASK}@", text)
        text = _QUERY.sub(rf"\g<name>{MASK}", text)
    low = text.lower()
    if "authorization" in low:
        text = _HEADER.sub(lambda m: f"{m['name']}{m['kind'] or ''}{MASK}", text)
    if "bearer" in low:
        text = _BEARER.sub(rf"\g<kind>{MASK}", text)
    if "--" in text:
        text = _FLAG.sub(_mask_value, text)
    if any(word in low for word in ("key", "token", "secret", "passw", "credential")):
        text = _NAMED.sub(_mask_value, text)
    return text


def redact_known(text: str) -> str:
    """Only what is a secret wherever it stands: tokens of known issuers, credentials in URLs. Commands stay usable."""
    return _URL.sub(rf"\g<scheme>{MASK}@", _WHOLE.sub(MASK, text))


def redact_env(env: Mapping[str, str]) -> dict[str, str]:
    """Environment with the values of secret-looking names masked, and secrets inside other values too."""
    return {name: MASK if is_secret(name, value) else redact(value) for name, value in env.items()}


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret: by its name, unless the value is a switch, a `$NAME` or a count of tokens."""
    return is_secret_name(name) and _secret_value(name, value)


def is_secret_flag(flag: str, value: str) -> bool:
    """The same for a flag: of `--api-key` yes, of `--max-num-batched-tokens` no."""
    return bool(_SECRET_FLAG.match(flag)) and not _COUNTS.search(flag) and _secret_value(flag, value)


def _secret_value(name: str, value: str) -> bool:
    if value.isdigit() and len(value) > 1:
        return "token" not in name.lower()
    return not _HARMLESS_VALUE.match(value)


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name holds a secret."""
    return bool(_SECRET_ENV.search(name))


def _mask_value(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    if _HARMLESS_VALUE.match(value) or _COUNTS.search(name):
        return match[0]
    if not re.search(r"[=:]\s*$", name) and not name.lstrip().startswith("--"):
        return match[0]
    if ":" in name and "=" not in name and value[0] not in "'\"[" and (len(value) < 12 or not re.search(r"\d", value)):
        # `token: something` in prose; real secrets are long, hold digits, or are quoted.
        return match[0]
    return f"{name}{MASK}"
