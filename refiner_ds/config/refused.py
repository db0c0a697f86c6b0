"""Flags of GaussianRefiner's and diffusers' training scripts that `train` does not carry, and what to use instead."""

_PACKED = "data are packed once from a manifest of render, gt and cond with `refiner-ds pack`, and named by --shards"
_FITTED = "pictures are fitted to aspect buckets and a square is cut from each, see --buckets"
_PROMPTS = "every sample has the empty prompt, and --condition_dropout_prob drops what does condition it"
_VALIDATION = "validation repairs the held-out split of the shards (`refiner-ds pack --val N`), see --validation_epochs"
_HUB = "nothing is uploaded during training; export the run with `refiner-ds export` and push that folder"
_TRACKING = "metrics go to MLflow, see --tracking_uri"
_EMA = "the average lies sharded beside the fp32 weights, where it takes little; see --use_ema"
_FROZEN = "text encoder, image encoder and VAE are the base's and stay frozen; see --pretrained_model_name_or_path"
_DREAM = "its second forward pass is not made here; the loss can be changed by --snr_gamma and --input_perturbation"
_SECTION = "schedules with parameters of their own are a scheduler section of the DeepSpeed JSON, see ds_configs/"

REFUSED = {
    **dict.fromkeys(("dataset_name", "dataset_config_name", "train_data_dir", "instance_data_dir"), _PACKED),
    **dict.fromkeys(("image_column", "caption_column", "original_image_column", "edited_image_column"), _PACKED),
    **dict.fromkeys(("conditioning_image_column", "edit_prompt_column"), _PACKED),
    "max_train_samples": "all samples of the shards are trained on; pack a manifest with fewer",
    **dict.fromkeys(("resolution", "center_crop", "image_interpolation_mode"), _FITTED),
    **dict.fromkeys(("instance_prompt", "proportion_empty_prompts"), _PROMPTS),
    "conditioning_dropout_prob": "each of seven cases of dropped conditions has --condition_dropout_prob",
    **dict.fromkeys(("validation_prompt", "validation_prompts", "val_image_url", "validation_image"), _VALIDATION),
    "num_validation_images": _VALIDATION,
    "cache_dir": "the hub's cache is where HF_HOME says, and shards are read where they lie; set that variable",
    **dict.fromkeys(("dream_training", "dream_detail_preservation"), _DREAM),
    **dict.fromkeys(("offload_ema", "foreach_ema"), _EMA),
    "non_ema_revision": "training starts from one set of weights; name it with --revision or --variant",
    **dict.fromkeys(("push_to_hub", "hub_model_id"), _HUB),
    "hub_token": "credentials on a command line can be read by others; log in with `hf auth login`, or set HF_TOKEN",
    "logging_dir": "figures of every step are in metrics.jsonl of --output_dir",
    "report_to": _TRACKING,
    "tracker_project_name": "metrics go to MLflow, in the experiment that --experiment names",
    "enable_xformers_memory_efficient_attention": (
        "attention is torch's own, which is as frugal; to save more memory, see --gradient_checkpointing"
    ),
    "set_grads_to_none": "DeepSpeed frees gradients after every update by itself; leave the flag out",
    **dict.fromkeys(("tokenizer_name", "train_text_encoder"), _FROZEN),
    **dict.fromkeys(("pretrained_vae_model_name_or_path", "image_encoder_path"), _FROZEN),
    "controlnet_model_name_or_path": (
        "the render enters through the UNet's own first layer, without a ControlNet; leave the flag out"
    ),
    **dict.fromkeys(
        ("unet_path", "unet_model_name_or_path", "pretrained_unet_path"),
        "the UNet is the base's, see --pretrained_model_name_or_path; make a base of one that the public script has "
        "saved with `refiner-ds import-legacy`",
    ),
    "rank": "the rank of low-rank updates is --lora_rank",
    **dict.fromkeys(("lr_num_cycles", "lr_power"), _SECTION),
    "deepspeed": "training always runs under DeepSpeed, as --deepspeed_config says; leave the flag out",
}
"""By name with underscores; each sentence says what holds here, and what to do."""
