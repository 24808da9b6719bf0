"""A whole training in one call."""

import torch
from composer import Trainer

from attent_stream import AtteNT


def trained(
    model,
    loader,
    *,
    algorithms=(),
    microbatch,
    load=None,
    saved=None,
    duration="1ep",
    seed=None,
    **attent,
):
    """The weights, in one vector, after plain SGD with AtteNT, by default on everything; a
    checkpoint a batch in ``saved``.
    """
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.05),
        max_duration=duration,
        algorithms=[AtteNT(**{"keep": 1.0, "select": "random"} | attent), *algorithms],
        progress_bar=False,
        seed=seed,
        device_train_microbatch_size=microbatch,
        save_folder=saved,
        save_interval="1ba",
        load_path=load,
    )
    trainer.fit()
    trainer.close()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
