"""Whether the hub answers, asked once before a model is loaded from it.

Left to itself huggingface_hub tries for 40 seconds and prints two lines an attempt. Not done here:
loading. Whatever the hub answers is for the loaders, which say what is wrong with the model.
"""

import logging
from pathlib import Path

from huggingface_hub import (
    constants,
    errors,
    get_hf_file_metadata,
    hf_hub_url,
    try_to_load_from_cache,
)

from swarmnode.errors import SwarmNodeError

log = logging.getLogger(__name__)

_FILE = "config.json"  # every model has it
_ANSWER_S = 10.0  # huggingface_hub's own limit for one such question
_FAILED = 500  # HTTP statuses from here on say that the hub is broken, not what was asked for


def must_use_cache(
    name: str, revision: str | None, endpoint: str | None = None, cache: Path | None = None
) -> bool:
    """Whether model `name` must be loaded from the cache alone, because the hub does not answer.

    False also where the user has switched the hub off, as the loaders obey that themselves.
    `endpoint` and `cache` replace huggingface_hub's own. Raises `SwarmNodeError` when there is
    neither hub nor cached model.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = endpoint or constants.ENDPOINT
    problem = _problem(name, revision, endpoint)
    if not problem:
        return False
    if isinstance(try_to_load_from_cache(name, _FILE, cache, revision), str):
        log.warning("hub did not answer, model comes from the cache hub=%s %s", endpoint, problem)
        return True
    raise SwarmNodeError(
        f"cannot load {name!r}: the hub at {endpoint} did not answer ({problem}) and the model is "
        "not in the cache; mend the connection or give --model a folder (one that was downloaded "
        "before is used with HF_HUB_OFFLINE=1)"
    )


def _problem(name: str, revision: str | None, endpoint: str) -> str:
    """Why the hub does not answer, in one line; "" when it does, whatever it says."""
    try:
        url = hf_hub_url(name, _FILE, revision=revision, endpoint=endpoint)
        get_hf_file_metadata(url, timeout=_ANSWER_S, endpoint=endpoint)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        return f"status {status}" if status >= _FAILED else ""
    except (OSError, ValueError):  # an answer without the usual headers; a name that is none
        return ""
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of its HTTP library, whichever
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""
