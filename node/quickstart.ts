/** The quickstart's domain and accounts: made where absent, their passwords set as asked, or made up once and kept for their user alone. */
import { randomInt } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { DirectoryError } from '../store/directory/index.js';
import { KvError } from '../store/kv/index.js';
import { quickstartAccounts, quickstartDomain } from './config/quickstart.js';
import type { Config } from './config/schema.js';
import { StartError } from './start-error.js';
import type { Stores } from './stores.js';

export interface QuickstartAccount {
  address: string;
  /** Absent when another node has made the account, with a password that is not known here. */
  password?: string;
}

const passwordAlphabet = 'abcdefghjkmnpqrstuvwxyz23456789';

/** 20 characters of 31 without look-alikes: 99 bits. */
function makePassword(): string {
  const characters = Array.from({ length: 20 }, () => passwordAlphabet[randomInt(passwordAlphabet.length)]);
  return characters.join('').replace(/(.{5})(?=.)/g, '$1-');
}

function readKept(file: string): Map<string, string> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    throw new StartError(`can't read the passwords: ${(error as Error).message}`, { cause: error });
  }
  try {
    const kept = JSON.parse(text) as { accounts: QuickstartAccount[] };
    return new Map(kept.accounts.flatMap(({ address, password }) => (password === undefined ? [] : [[address, password]])));
  } catch {
    // The parser's own words would quote passwords.
    throw new StartError(`${file} is damaged; delete it to have new passwords made`);
  }
}

/** Durable before any account gets its password: a crash in between leaves no account that nobody can open. */
function keep(file: string, accounts: QuickstartAccount[]): void {
  const temporary = `${file}.new`;
  const descriptor = openSync(temporary, 'w', 0o600);
  writeSync(descriptor, `${JSON.stringify({ accounts }, null, 2)}\n`);
  fsyncSync(descriptor);
  closeSync(descriptor);
  renameSync(temporary, file);
}

/**
 * Makes domain and accounts where they are not there. With `password`, all accounts get it; otherwise each has its own, kept in `DATA/quickstart.json`. On a
 * store that other nodes use too, accounts that are there already are taken as they are. Throws `StartError`.
 */
export async function prepareQuickstart(
  stores: Pick<Stores, 'directory' | 'mail' | 'kv'>,
  data: string,
  password: string | undefined,
): Promise<QuickstartAccount[]> {
  try {
    return await prepareAccounts(stores, data, password);
  } catch (error) {
    const isKnown = error instanceof DirectoryError || error instanceof KvError || (error as NodeJS.ErrnoException).syscall;
    if (error instanceof StartError || !isKnown) throw error;
    throw new StartError(`can't make the accounts: ${(error as Error).message}`, { cause: error });
  }
}

async function prepareAccounts(
  { directory, mail, kv }: Pick<Stores, 'directory' | 'mail' | 'kv'>,
  data: string,
  password: string | undefined,
): Promise<QuickstartAccount[]> {
  const isShared = kv.backend !== 'embedded';
  const file = join(data, 'quickstart.json');
  const kept = readKept(file);
  const wanted = quickstartAccounts.map((address) => ({ address, password: password ?? kept.get(address) ?? makePassword() }));
  if (wanted.some((account) => kept.get(account.address) !== account.password)) keep(file, wanted);
  await unlessThere(async () => {
    if (!(await directory.isLocalDomain(quickstartDomain))) await directory.createDomain(quickstartDomain);
  });
  const accounts: QuickstartAccount[] = [];
  for (const account of wanted) {
    await unlessThere(async () => {
      if (!(await directory.principal(account.address))) await createAccount(directory, account);
      else if (!isShared && kept.get(account.address) !== account.password)
        await directory.setPassword(account.address, account.password);
    });
    const { id } = (await directory.principal(account.address))!;
    await mail.ensureAccount(id);
    const isOurs = !isShared || (await directory.verifyPassword(account.address, account.password)).ok;
    accounts.push(isOurs ? account : { address: account.address });
  }
  // What is not the account's password must not stay in the file as if it were.
  if (accounts.some((account) => account.password === undefined)) keep(file, accounts);
  return accounts;
}

/** Another node that starts at the same time may be the one that makes it. */
async function unlessThere(make: () => Promise<unknown>): Promise<void> {
  try {
    await make();
  } catch (error) {
    if (!(error instanceof DirectoryError && error.code === 'exists')) throw error;
  }
}

function createAccount(directory: Stores['directory'], { address, password }: Required<QuickstartAccount>) {
  const name = address.slice(0, address.indexOf('@'));
  const displayName = `${name[0]!.toUpperCase()}${name.slice(1)}`;
  return directory.createPrincipal({ kind: 'account', address, displayName, password, isAdmin: name === 'admin' });
}

function passwordText({ password }: QuickstartAccount, hidePasswords: boolean): string {
  if (password === undefined) return '(made by another node, with its own password)';
  return hidePasswords ? '(the password you gave)' : password;
}

/** What the quickstart prints once ready. */
export function quickstartGreeting(config: Config, accounts: readonly QuickstartAccount[], hidePasswords: boolean): string {
  const port = (name: string) => config.listeners.find((listener) => listener.name === name)?.port;
  const listeners = config.listeners.map(
    ({ name, host, port, tls }) => `  ${name.padEnd(12)} ${host}:${port}${tls === 'none' ? '' : ` (${tls})`}`,
  );
  const alice = accounts.find(({ address }) => address.startsWith('alice@'))!;
  return [
    '',
    'Starling is ready.',
    ...listeners,
    '',
    'Accounts',
    ...accounts.map((account) => `  ${account.address.padEnd(22)} ${passwordText(account, hidePasswords)}`),
    '',
    'Send a first message:',
    `  swaks --server 127.0.0.1:${port('smtp')} --to ${alice.address} --from you@elsewhere.test --header 'Subject: Hello'`,
    `and read it with any IMAP client at 127.0.0.1:${port('imaps')} (TLS, self-signed certificate):`,
    `  curl -k --user ${alice.address} 'imaps://127.0.0.1:${port('imaps')}/INBOX;UID=1'`,
    `or with POP3 at 127.0.0.1:${port('pop3s')}:`,
    `  curl -k --user ${alice.address} 'pop3s://127.0.0.1:${port('pop3s')}/1'`,
    '',
    '',
  ].join('\n');
}
