"""A tiny random Qwen2-Audio with its processor, in the form in which users have it: a folder of the library's files."""

from pathlib import Path
from typing import Any

import torch

from heartml.core.tasks import TASKS
from heartml.models.heads.describe_text import SPECIAL, prompt

CHUNK_S = 2         # of the feature extractor, in the place of 30


def write(folder: Path) -> Path:
    """Write the folder: network, tokenizer built here, and Whisper's feature extractor at 16 kHz."""
    import transformers

    tokenizer = _tokenizer(transformers)
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=CHUNK_S)
    text = transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=None, eos_token_id=None)
    heard = transformers.Qwen2AudioEncoderConfig(
        d_model=24, encoder_layers=1, encoder_attention_heads=3, encoder_ffn_dim=48, num_mel_bins=80,
        max_source_positions=50 * CHUNK_S)
    config = transformers.Qwen2AudioConfig(
        audio_config=heard, text_config=text, audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.Qwen2AudioForConditionalGeneration(config)
        for name, weight in network.named_parameters():
            if "self_attn" in name or "projector" in name or "lm_head" in name:      # so that sound reaches the answer
                weight.data.normal_(0, 0.3)
    network.eval().save_pretrained(folder)
    transformers.Qwen2AudioProcessor(extractor, tokenizer).save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def _tokenizer(transformers: Any) -> Any:
    """Byte-level BPE, as Qwen's is, learnt from what is asked and answered."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    texts = [prompt(task, task.classes) for task in TASKS.values()]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>", *SPECIAL],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|endoftext|>",
                                                eos_token="<|endoftext|>")
