/** Every `*.txt` beside this file is a dialog (see `testing/dialog.ts`). */

import { testDialogs } from '../../imap/testing/dialogs.suite.js';
import { runDialog } from '../testing/dialog.js';

testDialogs(import.meta.dirname, runDialog);
