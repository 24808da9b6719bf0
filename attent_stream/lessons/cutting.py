"""Whether a run's samples can be cut into pieces and balanced, seen on one of them before any lesson is made."""

from composer.utils import dist

from attent_stream.dataloader import TeachingDataLoader
from attent_stream.scoring.batch import ScoreError
from attent_stream.scoring.features import FEATURES
from attent_stream.scoring.pieces import cuttable
from attent_stream.teaching.pieces import pieces_at
from attent_stream.teaching.teacher import TeacherSettings


def cutting_fault(loader: TeachingDataLoader, teacher: TeacherSettings, *, asked: bool) -> str | None:
    """Why lessons cannot be cut or balanced as a teacher would, or None; all ranks call this together.

    Args:
        loader: Has the samples and the collate function.
        teacher: What is to be done with them.
        asked: Whether the user asked for it by name. A sample that cannot be collated alone is then left to
            the workers, who see whole batches; else it is a reason.
    """
    if not teacher.seq_len.some and teacher.balance is None:
        return None
    fault = None
    try:
        batch = loader.glance()
        if teacher.balance is not None:
            FEATURES[teacher.balance](batch)
        if teacher.seq_len.some:
            cuttable(batch, pieces_at(teacher.seq_len.least))
    except ScoreError as error:
        fault = str(error)
    except Exception as error:
        fault = None if asked else f"{type(error).__name__}: {' '.join(str(error).split())}"
    return next((one for one in dist.all_gather_object(fault) if one is not None), None)
