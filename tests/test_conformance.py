"""Every registered detector keeps the contract; deliberately broken ones are caught by the right check."""

import broken_detectors
from broken_detectors import Sound

from adbench_tgan import DetectorInfo
from adbench_tgan.testing import examine, subject

OUTSIDE = {  # what is seen from another process
    "a worker process can run it",
    "the same seed gives the same scores in another process",
    "a saved state gives equal scores in another process",
    "ctrl c stops training",
}
GREY = ((1, 32, 32),)

BROKEN = {
    "BuildsNetworksAtOnce": ["building a detector does no work"],
}


def test_x():
    broken_detectors.PARENT["said so"] = True
    for name, cls in vars(broken_detectors).items():
        if isinstance(cls, type) and issubclass(cls, Sound):
            info = DetectorInfo(
                name=name,
                target=f"broken_detectors:{name}",
                extras=("map_mean",) if name == "SummedMaps" else (),
                deterministic=name == "Closed",
            )
            import time

            t = time.time()
            r = examine(subject(cls, info=info))
            print(name, round(time.time() - t, 2))
            for o in r.failed:
                print("      ", o)
            print("      ", r)
