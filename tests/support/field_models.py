"""What people train, as small jobs: ``AtteNT()`` must end none that plain training finishes."""

import field_images
import field_lora
import field_own
import field_text

JOBS = [*field_text.JOBS, *field_lora.JOBS, *field_images.JOBS, *field_own.JOBS]
