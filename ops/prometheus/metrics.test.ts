/** What rules and dashboards ask for exists: every metric is declared in the sources, with the labels that are asked of it; every alert has a test. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { enableProcessMetrics, registry } from '../telemetry/index.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** `up` and `ALERTS` are Prometheus's own; HAProxy's exporter has the other one. */
const foreignMetrics = ['haproxy_backend_active_servers'];
/** Set by Prometheus when it asks; `le` belongs to histograms, `exported_job` is the label `job` of a node's own metric. */
const scrapeLabels = ['instance', 'job', 'le', 'exported_job'];

function filesIn(folder: string, ending: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith(ending))
    .map((path) => join(root, folder, path));
}

/** Name → labels, of everything that is declared with `counter`, `gauge` or `histogram`; a histogram under the names of its series. */
function declaredMetrics(): Map<string, string[]> {
  const declared = new Map<string, string[]>();
  const declaration =
    /\b(counter|gauge|histogram)(?:<[^(]*>)?\(\s*'(starling_\w+)',\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?:,\s*\[([^\]]*)\])?/g;
  const sources = ['node', 'cluster', 'store', 'protocols'].flatMap((room) => filesIn(room, '.ts'));
  for (const path of sources.filter((path) => !path.endsWith('.test.ts'))) {
    for (const [, kind, name, labelText = ''] of readFileSync(path, 'utf8').matchAll(declaration)) {
      const labels = [...labelText.matchAll(/'(\w+)'/g)].map(([, label]) => label!);
      const series = kind === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
      for (const ending of series) declared.set(name! + ending, labels);
    }
  }
  enableProcessMetrics();
  for (const { name } of registry.getMetricsAsArray()) declared.set(name, []);
  return declared;
}

/** Every `metric` or `metric{label="value"}` of a text with PromQL in it. */
function selectorsIn(text: string): { metric: string; labels: string[] }[] {
  return [...text.matchAll(/\b((?:starling|haproxy)_\w+)(?:\{([^}]*)\})?/g)].map(([, metric, matchers = '']) => ({
    metric: metric!,
    labels: [...matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*\\?"/g)].map(([, label]) => label!),
  }));
}

const textOf = (paths: string[]) => paths.map((path) => readFileSync(path, 'utf8')).join('\n');
const rules = textOf(filesIn('ops/prometheus', '.rules.yml'));
const ruleTests = textOf(filesIn('ops/prometheus', '.test.yml'));
interface Panel {
  id: number;
  title: string;
  type: string;
  datasource?: { uid: string };
  targets?: { expr: string }[];
}
const dashboards = filesIn('ops/grafana/dashboards', '.json').map(
  (path) => JSON.parse(readFileSync(path, 'utf8')) as { uid: string; panels: Panel[] },
);
const panels = dashboards.flatMap((dashboard) => dashboard.panels);
const asked = selectorsIn([rules, ...panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))].join('\n'));

describe('metrics that rules and dashboards ask for', () => {
  const declared = declaredMetrics();

  it('are declared in the sources', () => {
    expect(declared.size).toBeGreaterThan(80);
    expect(asked.length).toBeGreaterThan(80);
    const missing = asked.filter(({ metric }) => !declared.has(metric) && !foreignMetrics.includes(metric));
    expect([...new Set(missing.map(({ metric }) => metric))]).toEqual([]);
  });

  it('have the labels that are asked of them', () => {
    const wrong = asked.flatMap(({ metric, labels }) =>
      labels
        .filter((label) => declared.has(metric) && !declared.get(metric)!.includes(label) && !scrapeLabels.includes(label))
        .map((label) => `${metric}{${label}}`),
    );
    expect(wrong).toEqual([]);
  });

  it('are the same in the tests of the rules', () => {
    const missing = selectorsIn(ruleTests).filter(({ metric }) => !declared.has(metric) && !foreignMetrics.includes(metric));
    expect(missing.map(({ metric }) => metric)).toEqual([]);
  });
});

describe('alerts', () => {
  const names = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name!);

  it('are named once, and each has a severity, a summary and what to do', () => {
    expect(names.length).toBeGreaterThan(30);
    expect(new Set(names).size).toBe(names.length);
    for (const field of ['severity: (?:info|warning|critical)', "summary: '", "description: '"])
      expect(rules.match(new RegExp(field, 'g')), field).toHaveLength(names.length);
  });

  it('are each seen to fire by a test of promtool', () => {
    const expected = new Set([...ruleTests.matchAll(/alertname(?:=\\?"|: )(\w+)/g)].map(([, name]) => name!));
    expect(names.filter((name) => !expected.has(name))).toEqual([]);
    expect([...expected].filter((name) => !names.includes(name))).toEqual([]);
  });
});

describe('dashboards', () => {
  it('have ids of their own, and take the data source from their variable', () => {
    expect(new Set(dashboards.map(({ uid }) => uid)).size).toBe(2);
    for (const dashboard of dashboards) {
      expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
      const drawn = dashboard.panels.filter(({ type }) => type !== 'row');
      for (const { title, datasource, targets = [] } of drawn) {
        // biome-ignore lint/suspicious/noTemplateCurlyInString: it is Grafana's own notation
        expect(datasource?.uid, title).toBe('${datasource}');
        expect(targets.length, title).toBeGreaterThan(0);
      }
    }
  });
});
