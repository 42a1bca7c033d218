"""The supported model families by the model_type of their config.json. See docs/models.md for how to add one."""

from sari_jax.hf.families.qwen2_5_omni import QWEN2_5_OMNI, QWEN2_5_OMNI_THINKER
from sari_jax.hf.families.qwen2_audio import QWEN2_AUDIO
from sari_jax.hf.family import Family

FAMILIES: dict[str, Family] = {
    "qwen2_audio": QWEN2_AUDIO,
    "qwen2_5_omni": QWEN2_5_OMNI,
    "qwen2_5_omni_thinker": QWEN2_5_OMNI_THINKER,
}
