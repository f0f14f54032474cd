"""KFP's compiled package (PipelineSpec): read, and what its values and expressions mean."""
