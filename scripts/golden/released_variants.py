"""Further tiny models for `released.py`: each family again, with the other value of what changes its computation."""

from typing import Any

SMALL = dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40)
LINEAR, FULL = "linear_attention", "full_attention"
MAMBA = dict(hidden_size=24, num_hidden_layers=2, state_size=5, conv_kernel=3)
MAMBA2 = dict(mamba_n_heads=6, mamba_d_head=8, mamba_n_groups=2, mamba_d_state=10, mamba_d_conv=3, mamba_chunk_size=16)
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=10)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)
LATENT = dict(kv_lora_rank=14, qk_rope_head_dim=6, qk_nope_head_dim=10, v_head_dim=8)
ROPE = dict(num_hidden_layers=1, head_dim=8, max_position_embeddings=256)
GLM5 = (
  dict(hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=3)
  | dict(layer_types=[LINEAR, "indexed_attention"] * 2, mlp_layer_types=["dense", *["sparse"] * 3])
  | dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=20, routed_scaling_factor=1.7)
  | dict(kv_lora_rank=14, q_lora_rank=12, qk_nope_head_dim=8, v_head_dim=10, linear_num_heads=2, linear_head_dim=6)
  | dict(linear_conv_kernel_dim=3, index_n_heads=8, index_head_dim=8, index_kpool=4, index_topk=8, swiglu_limit=0.8)
  | dict(rms_norm_eps=3e-5)
  | dict(
    vision_config=dict(depth=1, hidden_size=8, num_heads=2, intermediate_size=8, out_hidden_size=24)
    | dict(projection_intermediate_size=8, image_size=28)
  )
)
# the token that ends documents is among those of the reference's texts, as n-grams do not reach beyond it
QWEN4 = (
  dict(hidden_size=24, num_hidden_layers=3, layer_types=[LINEAR, "indexed_attention", LINEAR], rms_norm_eps=3e-5)
  | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, **DELTA, linear_conv_kernel_dim=3, **EXPERTS)
  | dict(shared_expert_intermediate_size=28, hc_count=3, hc_lowrank=8, indexer_n_heads=8, indexer_kv_heads=1)
  | dict(indexer_head_dim=10, indexer_budget=8, indexer_compress_ratio=4, ple_layer_ids=[1, 3], ple_embed_dim=20)
  | dict(ple_conv_kernel_size=3, ngram_size=3, heads_per_ngram=2, ngram_vocab_size_base=61, seed=77)
  | dict(make_ngram_vocab_size_divisible_by=8, split_ngram_parts=3, eos_token_id=7)
)

# folder -> model type, class of the causal model, arguments of its configuration
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
  "glm5_next_softplus": (
    *("glm5_next", "Glm5NextForConditionalGeneration"),
    dict(GLM5, linear_lower_bound=None, tie_word_embeddings=True, norm_topk_prob=False, num_hidden_layers=2)
    | dict(layer_types=[LINEAR, "indexed_attention"], mlp_layer_types=["sparse", "dense"]),
  ),
  "mamba_plain": (
    *("mamba", "MambaForCausalLM"),
    dict(MAMBA, use_bias=False, use_conv_bias=False, tie_word_embeddings=False, expand=3, time_step_rank=4),
  ),
  "falcon_mamba_plain": (
    *("falcon_mamba", "FalconMambaForCausalLM"),
    dict(MAMBA, use_bias=False, use_conv_bias=False, tie_word_embeddings=True, mixer_rms_eps=2e-5),
  ),
  "mamba2_plain": (
    *("mamba2", "Mamba2ForCausalLM"),
    dict(MAMBA, use_bias=False, use_conv_bias=False, tie_word_embeddings=True, num_heads=6, head_dim=8, n_groups=2)
    | dict(chunk_size=16),
  ),
  "jamba_dense": (
    *("jamba", "JambaForCausalLM"),
    dict(SMALL, num_hidden_layers=2, num_experts=1, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=5)
    | dict(mamba_d_conv=3, mamba_conv_bias=False, mamba_proj_bias=False, tie_word_embeddings=True)
    | dict(use_mamba_kernels=False),
  ),
  "bamba_plain": (
    *("bamba", "BambaForCausalLM"),
    dict(SMALL, **MAMBA2, num_hidden_layers=2, attn_layer_indices=[1], mamba_expand=2, attention_bias=False)
    | dict(mamba_proj_bias=False, mamba_conv_bias=False, mlp_bias=False, tie_word_embeddings=True)
    | dict(num_attention_heads=3, num_key_value_heads=1),
  ),
  "granite_bias": (
    *("granitemoehybrid", "GraniteMoeHybridForCausalLM"),
    dict(SMALL, **MAMBA2, num_hidden_layers=2, layer_types=[LINEAR, FULL], mamba_expand=2, num_local_experts=3)
    | dict(num_experts_per_tok=2, shared_intermediate_size=20, mamba_proj_bias=True, mamba_conv_bias=False)
    | dict(position_embedding_type="rope", attention_bias=True, tie_word_embeddings=False),
  ),
  "falcon_h1_gate_first": (
    *("falcon_h1", "FalconH1ForCausalLM"),
    dict(SMALL, num_hidden_layers=1, head_dim=8, mamba_d_ssm=36, mamba_n_heads=6, mamba_d_head=6, mamba_n_groups=2)
    | dict(mamba_d_state=10, mamba_rms_norm=True, mamba_norm_before_gate=False, mamba_conv_bias=False),
  ),
  "nemotron_h_bias": (
    *("nemotron_h", "NemotronHForCausalLM"),
    dict(SMALL, layers_block_type=[LINEAR, FULL, "mlp"], head_dim=8, ssm_state_size=10, mamba_num_heads=6)
    | dict(mamba_head_dim=8, n_groups=2, use_mamba_kernels=False, chunk_size=16, use_bias=True, mlp_bias=True)
    | dict(mamba_proj_bias=False, attention_bias=True, use_conv_bias=False),
  ),
  "zamba_plain": (
    *("zamba", "ZambaForCausalLM"),
    dict(SMALL, num_hidden_layers=3, layers_block_type=[LINEAR, "hybrid", "hybrid"], mamba_d_state=5, mamba_d_conv=3)
    | dict(mamba_dt_rank=4, n_mamba_heads=2, mamba_expand=2, mamba_proj_bias=False, mamba_conv_bias=False)
    | dict(use_mamba_kernels=False),
  ),
  "zamba2_plain": (
    *("zamba2", "Zamba2ForCausalLM"),
    dict(SMALL, num_key_value_heads=4, num_hidden_layers=4, n_mamba_heads=6, mamba_ngroups=2, mamba_d_state=10)
    | dict(layers_block_type=[LINEAR, "hybrid", LINEAR, "hybrid"], num_mem_blocks=1, mamba_d_conv=3, chunk_size=16)
    | dict(adapter_rank=3, use_shared_attention_adapter=False, use_mem_rope=False, use_mamba_kernels=False),
  ),
  "recurrent_gemma_bias": (
    *("recurrent_gemma", "RecurrentGemmaForCausalLM"),
    dict(SMALL, num_hidden_layers=3, lru_width=24, attention_window_size=20, conv1d_width=3, attention_bias=True)
    | dict(logits_soft_cap=9.0, block_types=["recurrent", "attention"], num_attention_heads=3, num_key_value_heads=3),
  ),
  "rwkv_wide": (
    *("rwkv", "RwkvForCausalLM"),
    dict(hidden_size=24, attention_hidden_size=32, intermediate_size=56, num_hidden_layers=2, rescale_every=0)
    | dict(layer_norm_epsilon=2e-5),
  ),
  "xlstm_plain": (
    *("xlstm", "xLSTMForCausalLM"),
    dict(hidden_size=32, num_heads=2, num_hidden_layers=2, use_bias=False, qk_dim_factor=0.5, chunk_size=16)
    | dict(ffn_round_up_to_multiple_of=8, autocast_kernel_dtype="float32", tie_word_embeddings=True)
    | dict(output_logit_soft_cap=11.0, gate_soft_cap=7.0),
  ),
  "qwen3_next_plain": (
    *("qwen3_next", "Qwen3NextForCausalLM"),
    dict(SMALL, **DELTA, **EXPERTS, num_hidden_layers=2, layer_types=[LINEAR, FULL], head_dim=16)
    | dict(shared_expert_intermediate_size=28, norm_topk_prob=False, mlp_only_layers=[0], tie_word_embeddings=True),
  ),
  "qwen3_5_tied": (
    *("qwen3_5_text", "Qwen3_5ForCausalLM"),
    dict(SMALL, **DELTA, num_hidden_layers=2, layer_types=[LINEAR, FULL], head_dim=16, tie_word_embeddings=True)
    | dict(
      rope_parameters=dict(rope_type="default", rope_theta=1e5, partial_rotary_factor=0.5, mrope_section=[2, 1, 1])
    ),
  ),
  "olmo_hybrid_plain": (
    *("olmo_hybrid", "OlmoHybridForCausalLM"),
    dict(SMALL, num_hidden_layers=2, layer_types=[LINEAR, FULL], linear_num_key_heads=2, linear_num_value_heads=2)
    | dict(linear_key_head_dim=12, linear_value_head_dim=18, linear_conv_kernel_dim=3, linear_allow_neg_eigval=False)
    | dict(attention_bias=True, tie_word_embeddings=True),
  ),
  "kimi_linear_q_rank": (
    *("kimi_linear", "KimiLinearForCausalLM"),
    dict(SMALL, **LATENT, num_key_value_heads=4, num_hidden_layers=2, layer_types=[LINEAR, FULL], q_lora_rank=12)
    | dict(mlp_layer_types=["sparse", "sparse"], moe_intermediate_size=20, num_local_experts=8, n_group=4)
    | dict(topk_group=2, num_experts_per_tok=2, norm_topk_prob=False, linear_head_dim=10, linear_num_heads=2)
    | dict(linear_conv_kernel_dim=3),
  ),
  "bailing_hybrid_yarn": (
    *("bailing_hybrid", "BailingHybridForCausalLM"),
    dict(SMALL, **LATENT, num_key_value_heads=4, num_hidden_layers=2, layer_types=[LINEAR, FULL], q_lora_rank=None)
    | dict(mlp_layer_types=["dense", "sparse"], moe_intermediate_size=20, num_local_experts=4, n_group=2)
    | dict(topk_group=1, num_experts_per_tok=2, norm_topk_prob=False, head_dim=10, short_conv_kernel_size=3)
    | dict(
      max_position_embeddings=256,
      rope_parameters=dict(
        rope_type="yarn", rope_theta=5e3, factor=4.0, original_max_position_embeddings=64, mscale=0.7,
        mscale_all_dim=0.4,
      ),
    ),
  ),
  "minimax_tied": (
    *("minimax", "MiniMaxForCausalLM"),
    dict(SMALL, num_hidden_layers=2, layer_types=[LINEAR, FULL], num_local_experts=3, head_dim=8, block_size=16)
    | dict(tie_word_embeddings=True),
  ),
  "lfm2_moe_plain": (
    *("lfm2_moe", "Lfm2MoeForCausalLM"),
    dict(SMALL, num_hidden_layers=2, layer_types=["conv", FULL], num_dense_layers=0, num_experts=4)
    | dict(num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=False, use_expert_bias=False),
  ),
  "lfm3_plain": (
    *("lfm3", "Lfm3ForCausalLM"),
    dict(SMALL, num_hidden_layers=2, layer_types=["conv", FULL], head_dim=8, conv_L_cache=3, conv_bias=True)
    | dict(use_attention_gate=False, use_sandwich_norm=False, attention_bias=True),
  ),
  "lara_mini_plain": (
    *("lara_mini", "LaraMiniForCausalLM"),
    dict(SMALL, **DELTA, **EXPERTS, num_hidden_layers=2, layer_types=[LINEAR, "sliding_attention"], head_dim=8)
    | dict(shared_expert_intermediate_size=28, sliding_window=20, norm_topk_prob=False, tie_word_embeddings=False),
  ),
  "zaya_untied": (
    *("zaya", "ZayaForCausalLM"),
    dict(SMALL, num_hidden_layers=2, head_dim=12, num_experts=3, moe_intermediate_size=20, router_hidden_size=12)
    | dict(cca_time0=2, cca_time1=3, tie_word_embeddings=False),
  ),
  "qwen4_exp_text": (
    *("qwen4_exp_text", "Qwen4ExpForCausalLM"),
    dict(QWEN4, num_hidden_layers=2, layer_types=[LINEAR, "indexed_attention"], output_gate_type="sigmoid")
    | dict(norm_topk_prob=False, tie_word_embeddings=True, hc_count=2, ple_layer_ids=[1], ngram_size=2)
    | dict(heads_per_ngram=3, ple_embed_dim=None, ple_conv_kernel_size=2, eos_token_id=[9, 2], split_ngram_parts=5)
    | dict(rope_parameters=dict(rope_type="default", rope_theta=1e5, partial_rotary_factor=0.5)),
  ),
  "gpt_neox_plain": (
    *("gpt_neox", "GPTNeoXForCausalLM"),
    dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, attention_bias=False)
    | dict(tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", rope_theta=5e3, factor=2.0)),
  ),
  "llama_bias": (
    *("llama", "LlamaForCausalLM"),
    dict(SMALL, **ROPE, attention_bias=True, mlp_bias=True)
    | dict(rope_parameters=dict(rope_type="linear", rope_theta=5e3, factor=2.0)),
  ),
  "dynamic_rope": (
    *("llama", "LlamaForCausalLM"),
    dict(SMALL, **ROPE, rope_parameters=dict(rope_type="dynamic", rope_theta=5e3, factor=2.0)),
  ),
  "longrope": (
    *("llama", "LlamaForCausalLM"),
    dict(SMALL, **ROPE)
    | dict(
      rope_parameters=dict(
        rope_type="longrope", rope_theta=5e3, original_max_position_embeddings=128, factor=2.0,
        short_factor=[1.0, 1.2, 1.5, 2.0], long_factor=[2.0, 3.0, 4.0, 5.0],
      )
    ),
  ),
  "yarn_mscale": (
    *("llama", "LlamaForCausalLM"),
    dict(SMALL, **ROPE)
    | dict(
      rope_parameters=dict(
        rope_type="yarn", rope_theta=5e3, factor=4.0, original_max_position_embeddings=64, beta_fast=16.0,
        beta_slow=2.0, mscale=0.7, mscale_all_dim=0.4,
      )
    ),
  ),
}  # fmt: skip
