/** Asks a Prometheus over its HTTP API. */

interface Answer<T> {
  status: string;
  error?: string;
  data: T;
}

export interface Alert {
  labels: Record<string, string>;
  state: 'pending' | 'firing';
}

export class PrometheusApi {
  constructor(private readonly port: number) {}

  async #ask<T>(path: string): Promise<T> {
    const response = await fetch(`http://127.0.0.1:${this.port}${path}`, { signal: AbortSignal.timeout(10_000) });
    const answer = (await response.json()) as Answer<T>;
    if (answer.status !== 'success') throw new Error(`Prometheus: ${answer.error ?? response.status}`);
    return answer.data;
  }

  /** Alerts that are pending or firing, of this name. */
  async alerts(name?: string): Promise<Alert[]> {
    const { alerts } = await this.#ask<{ alerts: Alert[] }>('/api/v1/alerts');
    return alerts.filter(({ labels }) => name === undefined || labels['alertname'] === name);
  }

  /** The value of each series that the expression has now. */
  async query(expression: string): Promise<{ labels: Record<string, string>; value: number }[]> {
    const { result } = await this.#ask<{ result: { metric: Record<string, string>; value: [number, string] }[] }>(
      `/api/v1/query?query=${encodeURIComponent(expression)}`,
    );
    return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** How many rules it has loaded, and those that can't be evaluated. */
  async rules(): Promise<{ count: number; broken: string[] }> {
    const { groups } = await this.#ask<{ groups: { rules: { name: string; health: string }[] }[] }>('/api/v1/rules');
    const rules = groups.flatMap((group) => group.rules);
    return { count: rules.length, broken: rules.filter(({ health }) => health === 'err').map(({ name }) => name) };
  }
}
