/** Pieces that several sections have. */
import { z } from 'zod';

export const port = z.int().min(1).max(65_535);
/** Made anew for each section: a schema carries its own description. */
export const maxMessageBytes = () => z.int().min(1_024).max(200_000_000).default(52_428_800);
