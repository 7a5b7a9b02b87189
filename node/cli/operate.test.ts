import { describe, expect, it } from 'vitest';
import { operations } from '../api/operations.js';
import { UsageError } from './arguments.js';
import { checkUsage } from './operate.js';

const check = (name: string, positionals: string[], flags: Record<string, string | boolean | string[]> = {}) =>
  checkUsage(name, operations[name]!, { positionals, flags });

describe('what an operation takes', () => {
  it('is what its usage says', () => {
    check('account create', ['a@b.test'], { name: 'A', password: 'x', alias: ['c@b.test'], admin: true, quota: '1G' });
    check('list create', ['l@b.test'], { member: ['a@b.test'] });
    check('domain create', ['b.test'], { 'catch-all': 'a@b.test' });
    check('account remove-app-password', ['a@b.test', 'phone']);
    check('queue list', [], { limit: '10000' });
    check('store check', []);
    check('node show', []);
    check('node show', ['0123']);
    check('queue list', [], { sender: '@b.test', 'older-than': '2h', text: 'busy', after: 'x' });
    check('queue cancel', [], { all: true, bounce: true, note: 'spam' });
    check('queue retry', ['x'], { domain: 'b.test' });
    check('queue pause', ['b.test'], { note: 'moving' });
    check('explain', ['x'], { deep: true });
    check('ban add', ['192.0.2.0/24'], { for: '2h' });
    check('lookup set', ['list', 'key']);
    check('lookup set', ['list', 'key', 'value']);
  });

  it.each([
    ['account create', [], {}],
    ['account create', ['a@b.test', 'c@b.test'], {}],
    ['account create', ['a@b.test'], { member: ['x@b.test'] }],
    ['list create', ['l@b.test'], { password: 'x' }],
    ['list create', ['l@b.test'], { quota: '1G' }],
    ['domain create', ['b.test'], { alias: ['x'] }],
    ['store check', ['now'], {}],
    ['node show', ['0123', '4567'], {}],
    ['node list', ['0123'], {}],
    ['explain', [], {}],
    ['explain', ['x', 'y'], {}],
    ['queue list', ['x'], {}],
    ['queue hold', ['x', 'y'], {}],
    ['queue hold', ['x'], { bounce: true }],
    ['lookup set', ['list'], {}],
    ['lookup set', ['list', 'key', 'value', 'more'], {}],
    ['ban lift', ['192.0.2.1'], { for: '2h' }],
    ['queue list', [], { limit: '0' }],
    ['queue list', [], { limit: '10001' }],
    ['queue list', [], { limit: 'all' }],
  ])('%s %j %j is wrong usage', (name, positionals, flags) => {
    expect(() => check(name, positionals, flags)).toThrow(UsageError);
  });
});
