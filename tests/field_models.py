"""What people train, as small jobs: the field on which ``AtteNT()`` must never end a run that plain training finishes."""

import field_images
import field_lora
import field_own
import field_text

JOBS = [*field_text.JOBS, *field_lora.JOBS, *field_images.JOBS, *field_own.JOBS]
