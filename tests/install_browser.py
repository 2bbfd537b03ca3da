"""Make sure that Chromium and a font with Chinese characters are here, for the browser tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ["chromium", "fonts-noto-cjk"]


def main() -> int:
    browser = os.environ.get("M3_CHROMIUM") or shutil.which("chromium")
    fonts = any(Path("/usr/share/fonts").rglob("NotoSansCJK*")) if sys.platform == "linux" else True
    if browser and fonts:
        return 0
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print(f"the browser tests need {' and '.join(PACKAGES)}: run: sudo apt-get install {' '.join(PACKAGES)}")
        print("(or set M3_CHROMIUM to a Chromium of yours); without it they are skipped, and in CI they fail")
        return 0
    print(f"installing {' and '.join(PACKAGES)} for the browser tests")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr.strip()[-2000:])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
