"""`python -m gravito.horizon`: one worker process, as `Work.command` starts it; people use `gravito horizon work`."""

import sys

import msgspec

from gravito.errors import ConfigurationError
from gravito.horizon._target import find
from gravito.horizon.process import Work, run_worker
from gravito.horizon.supervisor import MISCONFIGURED

if __name__ == "__main__":  # not in the processes of a job's own, which import it, too
    try:
        work = msgspec.json.decode(sys.argv[1], type=Work)
        horizon = find(work.target)
    except (IndexError, msgspec.DecodeError):
        sys.exit("Error: this is for the supervisor; use gravito horizon work")
    except ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(
            2 if work.supervisor is None else MISCONFIGURED
        )  # 2: as the terminal says it of a wrong argument
    sys.exit(run_worker(horizon, work))
