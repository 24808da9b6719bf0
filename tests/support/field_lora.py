"""Jobs of LoRA on a tiny LLaMA; needs peft."""

from field_jobs import SCORED, Job, class_scores, written
from field_text import TEXT, hugging, hugging_logits, llama, next_tokens, padded
from peft import LoraConfig, get_peft_model


def _lora(**options):
    config = LoraConfig(
        r=2,
        lora_alpha=8,
        lora_dropout=0.0,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
        **options,
    )
    return lambda: get_peft_model(llama(), config)


def _job(name: str, **options) -> Job:
    return Job(
        name=name,
        model=hugging(_lora(**options)),
        write=written(TEXT, padded),
        expected=SCORED,
        **class_scores(next_tokens(hugging_logits)),
    )


JOBS = [_job("LoRA of the attention"), _job("LoRA, head trained too", modules_to_save=["lm_head"])]
