"""What every target and every encoder must do, as tests that users run on theirs; and a target that fails as told.

```python
class TestMyTarget(TargetContract):
    @pytest.fixture
    def make_target(self, tmp_path):
        return lambda **options: MyTarget(tmp_path / "store", **options)
```
"""

from lighter_async.optional_packages import optional

with optional("lighter_async.testing needs pytest", "pytest"):
    import pytest

# So that an assertion that fails shows its values.
for part in ("base", "encoder", "equality", "lanes", "other_processes", "target", "through"):
    pytest.register_assert_rewrite(f"{__name__}.{part}")

from lighter_async.testing.encoder import EncoderContract  # noqa: E402
from lighter_async.testing.faulty import Attempts, Fault, FaultyTarget  # noqa: E402
from lighter_async.testing.target import TargetContract  # noqa: E402

__all__ = ["Attempts", "EncoderContract", "Fault", "FaultyTarget", "TargetContract"]
