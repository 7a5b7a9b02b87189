/** The table of commands. */
import type { Command } from '../command.js';
import { authenticate } from './authenticate.js';
import { capability } from './capability.js';
import { copy, move } from './copy-move.js';
import { enable } from './enable.js';
import { expunge } from './expunge.js';
import { fetch } from './fetch.js';
import { id } from './id.js';
import { idle } from './idle.js';
import { list, lsub } from './list.js';
import { login } from './login.js';
import { logout } from './logout.js';
import { create, deleteMailbox, rename, subscribe, unsubscribe } from './mailboxes.js';
import { namespace } from './namespace.js';
import { check, noop } from './noop.js';
import { search } from './search.js';
import { close, examine, select, unselect } from './select.js';
import { starttls } from './starttls.js';
import { status } from './status.js';
import { store } from './store.js';

/** By name, upper case. APPEND is not among them: it runs while it is still coming in (`append.ts`). */
export const commands: ReadonlyMap<string, Command> = new Map(
  [
    authenticate,
    capability,
    check,
    close,
    copy,
    create,
    deleteMailbox,
    enable,
    examine,
    expunge,
    fetch,
    id,
    idle,
    list,
    login,
    logout,
    lsub,
    move,
    namespace,
    noop,
    rename,
    search,
    select,
    starttls,
    status,
    store,
    subscribe,
    unselect,
    unsubscribe,
  ].map((command) => [command.name, command]),
);
