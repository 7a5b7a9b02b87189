/** The table of commands. */
import type { Command } from '../command.js';
import { deleteAcl, getAcl, listRights, myRights, setAcl } from './acl.js';
import { authenticate } from './authenticate.js';
import { cancelUpdate } from './cancelupdate.js';
import { capability } from './capability.js';
import { compress } from './compress.js';
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
import { getMetadata, setMetadata } from './metadata.js';
import { namespace } from './namespace.js';
import { check, noop } from './noop.js';
import { notify } from './notify.js';
import { getQuota, getQuotaRoot } from './quota.js';
import { search } from './search.js';
import { close, examine, select, unselect } from './select.js';
import { sort } from './sort.js';
import { starttls } from './starttls.js';
import { status } from './status.js';
import { store } from './store.js';
import { thread } from './thread.js';
import { unauthenticate } from './unauthenticate.js';

/** By name, upper case. APPEND is not among them: it runs while it is still coming in (`append.ts`). */
export const commands: ReadonlyMap<string, Command> = new Map(
  [
    authenticate,
    cancelUpdate,
    capability,
    check,
    close,
    compress,
    copy,
    create,
    deleteAcl,
    deleteMailbox,
    enable,
    examine,
    expunge,
    fetch,
    getAcl,
    getMetadata,
    getQuota,
    getQuotaRoot,
    id,
    idle,
    list,
    listRights,
    login,
    logout,
    lsub,
    move,
    myRights,
    namespace,
    noop,
    notify,
    rename,
    search,
    select,
    setAcl,
    setMetadata,
    sort,
    starttls,
    status,
    store,
    subscribe,
    thread,
    unauthenticate,
    unselect,
    unsubscribe,
  ].map((command) => [command.name, command]),
);
