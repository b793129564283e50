"""A node of a peer-to-peer swarm of language models that learn from each other (SAPO).

| file | what it is |
|---|---|
| `cli.py`, `commands/` | the command line; what its commands do is in the next lines' files |
| `bootstrapping.py`, `helper_metrics.py` | `bootstrap`: a node that only helps others to meet |
| `networking.py` | settings → a network, for all commands that open one |
| `joining.py`, `demo.py`, `evaluating.py`, `inspection.py` | `join`, `demo`, `eval`, `inspect` |
| `status.py`, `doctor/`, `pages/` | `status` and `top`; `doctor`; `report` |
| `exporting.py`, `pausing.py` | `export`; `pause` and `resume` |
| `node.py` | the round loop, where the parts below meet; `assembly.py` starts them |
| `resuming.py`, `stopping.py` | where a node stands, saved and restored; how it is asked to stop |
| `reporting.py`, `report.py` | what a round did, and the records of it |
| `config.py`, `manifest.py` | one node's settings; what all nodes of a swarm share |
| `unknown_fields.py` | what could have stood where a file has an unknown field |
| `rollout.py` | the records that cross layers |
| `questions.py`, `samples.py` | manifest → tasks; groups → training samples |
| `defending.py` | what this node takes from peers' texts beyond the verified answer |
| `probing.py`, `rolling_back.py` | when the policy went wrong, and the way back |
| `generation.py`, `ahead.py` | settings → what answers; a round's questions asked before it |
| `breadth.py`, `gain.py` | how many answers a question gets; what peers give this node |
| `evaluation.py` | held-out accuracy |
| `run_directory.py`, `identity.py` | a run on disk; the key that is the node |
| `life.py`, `rows.py` | what a node says it is at; the ends of long files |
| `run_view.py`, `run_words.py` | how a run stands, and that in words |
| `failures.py` | what a round that failed was about: memory, disk, device |
| `deadline.py`, `tracking.py` | `--until`; TensorBoard and Weights & Biases |
| `metrics.py`, `scraped.py`, `log.py`, `plots.py`, `summary.py` | what a person sees |
| `tasks/` | questions, their scores, the scorer process |
| `generate/` | completions from the policy; prompts and foreign text |
| `train/` | advantages, loss, optimiser step, checkpoints, model loading |
| `swarm/` | transports, what is admitted, sampled, pooled |

The method is SAPO, Swarm sAmpling Policy Optimization (arXiv 2509.08721).
"""
