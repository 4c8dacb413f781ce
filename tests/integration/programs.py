"""Users' programs that more than one test file runs."""

#: A workflow of 25 tasks, in a campaign.
SWEEP = """
    import provd

    @provd.task
    def train(n):
        return {"loss": n}

    with provd.workflow("sweep", workflow_id="w1", campaign_id="c1"):
        for n in range(25):
            train(n)
"""
