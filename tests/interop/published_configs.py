"""Values of config.json of checkpoints as their publishers wrote them, with keys that transformers 5 writes no more.

Names of files, versions and special tokens are left out.
"""

from typing import Any

MAMBA_STEPS = dict(time_step_floor=1e-4, time_step_max=0.1, time_step_min=1e-3)
MAMBA = MAMBA_STEPS | dict(
  conv_kernel=4, expand=2, hidden_act="silu", initializer_range=0.1, layer_norm_epsilon=1e-5, residual_in_fp32=True,
  rescale_prenorm_residual=False, time_step_init_scheme="random", time_step_scale=1.0, use_bias=False, use_cache=True,
  use_conv_bias=True,
)  # fmt: skip
LIKE_LLAMA = dict(
  attention_bias=False, attention_dropout=0.0, hidden_act="silu", initializer_range=0.02, use_cache=True
)


def marked(count: int, marked: list[int], kinds: tuple[str, str]) -> list[str]:
  """A list of the first kind, but for the places that are marked."""
  return [kinds[i in marked] for i in range(count)]


# recipe -> model type and values
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
  "mamba_130m": (
    "mamba",
    dict(MAMBA, d_inner=1536, d_model=768, fused_add_norm=True, hidden_size=768, intermediate_size=1536, n_layer=24)
    | dict(num_hidden_layers=24, pad_vocab_size_multiple=8, rms_norm=True, ssm_cfg={}, state_size=16)
    | dict(time_step_rank=48, vocab_size=50280),
  ),
  "falcon_mamba_7b": (
    "falcon_mamba",
    dict(MAMBA, expand=16, hidden_size=4096, intermediate_size=8192, mixer_rms_eps=1e-6, num_hidden_layers=64)
    | dict(state_size=16, tie_word_embeddings=False, time_step_rank=256, use_mambapy=False, vocab_size=65024),
  ),
  "mamba2_130m": (
    "mamba2",
    dict(MAMBA, chunk_size=256, head_dim=64, hidden_size=768, intermediate_size=1536, n_groups=1, num_heads=24)
    | dict(norm_before_gate=True, num_hidden_layers=24, rms_norm=True, state_size=128, tie_word_embeddings=True)
    | dict(time_step_limit=[0.0, float("inf")], time_step_rank=256, vocab_size=50288),
  ),
  "zamba_7b": (
    "zamba",
    dict(attention_dropout=0.0, attn_layer_offset=4, attn_layer_period=6, hidden_act="gelu", hidden_mamba_act="silu")
    | dict(hidden_size=3712, initializer_range=0.02, intermediate_size=14848, mamba_conv_bias=True, mamba_d_conv=4)
    | dict(mamba_d_state=16, mamba_dt_rank=232, mamba_expand=2, mamba_proj_bias=False, max_position_embeddings=4096)
    | dict(n_mamba_heads=2, num_attention_heads=16, num_hidden_layers=76, num_key_value_heads=16, use_cache=True)
    | dict(num_logits_to_keep=1, rms_norm_eps=1e-5, rope_theta=10000, sliding_window=None, unk_token_id=0)
    | dict(use_mamba_kernels=True, vocab_size=32000),
  ),
  "zamba2_2.7b": (
    "zamba2",
    MAMBA_STEPS
    | dict(adapter_rank=128, add_bias_linear=False, attention_dropout=0.0, attention_head_dim=160, chunk_size=256)
    | dict(attention_hidden_size=5120, ffn_hidden_size=10240, hidden_act="gelu", hidden_size=2560, use_cache=True)
    | dict(hybrid_layer_ids=[6, 12, 18, 24, 30, 36, 42, 47, 51], initializer_range=0.02, intermediate_size=10240)
    | dict(layers_block_type=marked(54, [6, 12, 18, 24, 30, 36, 42, 47, 51], ("mamba", "hybrid")), kv_channels=80)
    | dict(mamba_d_conv=4, mamba_d_state=64, mamba_expand=2, mamba_headdim=64, mamba_ngroups=1, n_mamba_heads=80)
    | dict(max_position_embeddings=4096, num_attention_heads=32, num_hidden_layers=54, num_key_value_heads=32)
    | dict(num_logits_to_keep=1, num_mem_blocks=2, num_query_groups=32, rms_norm_eps=1e-5, rope_theta=10000)
    | dict(time_step_limit=None, use_conv_bias=True, use_long_context=False, use_mem_eff_path=True, use_mem_rope=False)
    | dict(use_shared_attention_adapter=False, use_shared_mlp_adapter=True, vocab_size=32000),
  ),
  "granite_4_h_micro": (
    "granitemoehybrid",
    dict(LIKE_LLAMA, attention_multiplier=0.015625, embedding_multiplier=12, hidden_size=2048, initializer_range=0.1)
    | dict(intermediate_size=8192, layer_types=marked(40, [5, 15, 25, 35], ("mamba", "attention")), logits_scaling=8)
    | dict(mamba_chunk_size=256, mamba_conv_bias=True, mamba_d_conv=4, mamba_d_head=64, mamba_d_state=128)
    | dict(mamba_expand=2, mamba_n_groups=1, mamba_n_heads=64, mamba_proj_bias=False, normalization_function="rmsnorm")
    | dict(max_position_embeddings=131072, num_attention_heads=32, num_experts_per_tok=0, num_hidden_layers=40)
    | dict(num_key_value_heads=8, num_local_experts=0, output_router_logits=False, position_embedding_type="nope")
    | dict(residual_multiplier=0.22, rms_norm_eps=1e-5, rope_scaling=None, rope_theta=10000, vocab_size=100352)
    | dict(router_aux_loss_coef=0.01, shared_intermediate_size=8192, tie_word_embeddings=True),
  ),
  "falcon_h1_0.5b": (
    "falcon_h1",
    dict(LIKE_LLAMA, attention_in_multiplier=1.0, attention_out_multiplier=0.9375, attn_layer_indices=None)
    | dict(embedding_multiplier=5.656854249492381, head_dim=64, hidden_size=1024, intermediate_size=2048)
    | dict(key_multiplier=0.39062499999999994, lm_head_multiplier=0.0390625, mamba_chunk_size=128, vocab_size=32784)
    | dict(mamba_conv_bias=True, mamba_d_conv=4, mamba_d_head=64, mamba_d_ssm=1536, mamba_d_state=128, mamba_expand=2)
    | dict(mamba_n_groups=1, mamba_n_heads=24, mamba_norm_before_gate=False, mamba_proj_bias=False)
    | dict(mamba_rms_norm=False, mamba_use_mlp=True, max_position_embeddings=16384, mlp_bias=False)
    | dict(mlp_expansion_factor=8, mlp_multipliers=[0.8838834764831844, 0.5859375], num_attention_heads=8)
    | dict(num_hidden_layers=36, num_key_value_heads=2, num_logits_to_keep=1, projectors_bias=False)
    | dict(rms_norm_eps=1e-5, rope_scaling=None, rope_theta=1e11, ssm_in_multiplier=1.25, ssm_out_multiplier=0.23)
    | dict(ssm_multipliers=[0.35, 0.25, 0.18, 0.5, 0.35], tie_word_embeddings=False),
  ),
  "recurrentgemma_2b": (
    "recurrent_gemma",
    dict(attention_bias=False, attention_dropout=0.0, attention_window_size=2048, conv1d_width=4, head_dim=256)
    | dict(_block_types=["recurrent", "recurrent", "attention"], block_types=["recurrent", "recurrent", "attention"])
    | dict(embeddings_scale_by_sqrt_dim=True, final_w_init_variance_scale=0.0769, hidden_size=2560, lru_width=2560)
    | dict(hidden_activation="gelu_pytorch_tanh", intermediate_size=15360, logits_soft_cap=30.0, rms_norm_eps=1e-6)
    | dict(num_attention_heads=10, num_hidden_layers=26, num_key_value_heads=1, partial_rotary_factor=0.5)
    | dict(rope_theta=1e4, use_cache=True, vocab_size=256000, w_init_variance_scale=0.01),
  ),
  "lfm2_350m": (
    "lfm2",
    dict(block_auto_adjust_ff_dim=True, block_dim=1024, block_ff_dim=6656, block_ffn_dim_multiplier=1.0)
    | dict(block_mlp_init_scale=1.0, block_multiple_of=256, block_norm_eps=1e-5, block_out_init_scale=1.0)
    | dict(block_use_swiglu=True, block_use_xavier_init=True, conv_L_cache=3, conv_bias=False, conv_dim=1024)
    | dict(conv_dim_out=1024, conv_use_xavier_init=True, hidden_size=1024, initializer_range=0.02, norm_eps=1e-5)
    | dict(layer_types=marked(16, [2, 5, 8, 10, 12, 14], ("conv", "full_attention")), max_position_embeddings=128000)
    | dict(num_attention_heads=16, num_heads=16, num_hidden_layers=16, num_key_value_heads=8, rope_theta=1e6)
    | dict(tie_embedding=True, use_cache=True, use_pos_enc=True, vocab_size=65536),
  ),
  "kimi_linear_48b": (
    "kimi_linear",
    dict(first_k_dense_replace=1, head_dim=72, hidden_act="silu", hidden_size=2304, initializer_range=0.02)
    | dict(intermediate_size=9216, kv_lora_rank=512, mla_use_nope=True, model_max_length=1048576)
    | dict(
      linear_attn_config=dict(
        full_attn_layers=[4, 8, 12, 16, 20, 24, 27], head_dim=128, num_heads=32, short_conv_kernel_size=4,
        kda_layers=[1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26],
      )
    )
    | dict(moe_intermediate_size=1024, moe_layer_freq=1, moe_renormalize=True, moe_router_activation_func="sigmoid")
    | dict(num_attention_heads=32, num_expert_group=1, num_experts=256, num_experts_per_token=8, num_hidden_layers=27)
    | dict(num_key_value_heads=32, num_nextn_predict_layers=0, num_shared_experts=1, q_lora_rank=None, topk_group=1)
    | dict(qk_nope_head_dim=128, qk_rope_head_dim=64, rms_norm_eps=1e-5, rope_scaling=None, rope_theta=1e4)
    | dict(routed_scaling_factor=2.446, tie_word_embeddings=False, use_cache=True, use_grouped_topk=True)
    | dict(v_head_dim=128, vocab_size=163840),
  ),
  "qwen3_next_80b": (
    "qwen3_next",
    dict(LIKE_LLAMA, decoder_sparse_step=1, full_attention_interval=4, head_dim=256, hidden_size=2048)
    | dict(intermediate_size=5120, linear_conv_kernel_dim=4, linear_key_head_dim=128, linear_num_key_heads=16)
    | dict(linear_num_value_heads=32, linear_value_head_dim=128, max_position_embeddings=262144, mlp_only_layers=[])
    | dict(moe_intermediate_size=512, norm_topk_prob=True, num_attention_heads=16, num_experts=512)
    | dict(num_experts_per_tok=10, num_hidden_layers=48, num_key_value_heads=2, output_router_logits=False)
    | dict(partial_rotary_factor=0.25, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=1e7, vocab_size=151936)
    | dict(router_aux_loss_coef=0.001, shared_expert_intermediate_size=512, tie_word_embeddings=False)
    | dict(use_sliding_window=False),
  ),
  "pythia_160m": (
    "gpt_neox",
    dict(hidden_act="gelu", hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-5)
    | dict(max_position_embeddings=2048, num_attention_heads=12, num_hidden_layers=12, rotary_emb_base=10000)
    | dict(rotary_pct=0.25, tie_word_embeddings=False, use_cache=True, use_parallel_residual=True, vocab_size=50304),
  ),
}  # fmt: skip
