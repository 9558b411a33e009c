"""An engine stand-in: vLLM 0.32's OpenAI server without a model.

It accepts the arguments of the `vllm/vllm-openai` image, answers the OpenAI API, and spends the time
that a real engine would, after a step-time model with continuous batching and a KV cache limit. Its
metrics carry vLLM's names. Its own behaviour is set by `STANDIN_*` variables and, at run time, through
`/standin/faults`. Run it with `python -m dev.standin --help`.
"""
