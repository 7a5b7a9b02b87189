/** Every `*.txt` beside this file is a dialog (see `testing/dialog.ts`). */
import { runDialog } from '../testing/dialog.js';
import { testDialogs } from '../testing/dialogs.suite.js';

testDialogs(import.meta.dirname, runDialog);
