// Who may import whom (README, "The house"). ops/telemetry is the floor; everything else stands on it.
const production = '^(node|cluster|store|protocols|ops)/';
module.exports = {
  forbidden: [
    { name: 'no-circles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'floor-stands-alone',
      severity: 'error',
      from: { path: '^ops/telemetry/' },
      to: { path: production, pathNot: '^ops/telemetry/' },
    },
    {
      name: 'store-imports-only-the-floor',
      severity: 'error',
      from: { path: '^store/' },
      to: {
        path: '^(node|cluster|protocols|ops|test-cluster)/',
        // Tests of a backend start a real server with the harness.
        pathNot: '^ops/telemetry/|^test-cluster/harness/(postgres-server|tcp-proxy|swift|needs)',
      },
    },
    {
      name: 'production-starts-no-test-servers',
      severity: 'error',
      from: { path: '^store/', pathNot: '(\\.test|\\.suite|test-[a-z-]+)\\.ts$' },
      to: { path: '^test-cluster/' },
    },
    {
      name: 'cluster-imports-kv-settings-floor',
      severity: 'error',
      from: { path: '^cluster/' },
      to: {
        path: '^(node|store|protocols|ops|test-cluster)/',
        pathNot: '^(ops/telemetry|store/kv|store/settings|store/keyspace)',
      },
    },
    {
      name: 'protocols-never-cluster-or-node',
      severity: 'error',
      from: { path: '^protocols/' },
      to: { path: '^(node|cluster|ops|test-cluster)/', pathNot: '^ops/telemetry/' },
    },
    {
      name: 'production-never-imports-the-test-cluster',
      severity: 'error',
      from: { path: '^(node|ops)/' },
      to: { path: '^test-cluster/' },
    },
    {
      name: 'test-cluster-talks-over-sockets',
      severity: 'error',
      from: { path: '^test-cluster/', pathNot: '^test-cluster/(simulation|bench)/' },
      to: { path: production },
    },
    {
      name: 'no-dev-dependency-in-production',
      severity: 'error',
      from: { path: production, pathNot: '(\\.(test|suite|e2e|bench)|/test-[a-z-]+)\\.ts$' },
      to: { dependencyTypes: ['npm-dev'] },
    },
    {
      name: 'resolvable',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true, pathNot: '^(uWebSockets\\.js|@uwsjs/|node:sqlite)|/dist/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^dist/|^data/)' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
};
