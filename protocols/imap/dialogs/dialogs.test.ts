/** Every `*.txt` beside this file is a dialog (see `testing/dialog.ts`). */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'vitest';
import { runDialog } from '../testing/dialog.js';

describe('dialogs', () => {
  for (const name of readdirSync(import.meta.dirname).filter((file) => file.endsWith('.txt'))) {
    it(name.slice(0, -4), () => runDialog(readFileSync(`${import.meta.dirname}/${name}`, 'utf8')));
  }
});
