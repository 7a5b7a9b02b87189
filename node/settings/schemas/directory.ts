/** Section `directory`. */
import { z } from 'zod';

export const directory = z.strictObject({
  minPasswordCharacters: z.int().min(1).max(128).default(8).describe('Shortest password that may be set'),
});
