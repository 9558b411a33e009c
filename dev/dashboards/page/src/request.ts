/** What the page is asked to draw. The program that opens the page sets it before any script runs. */

import type { Dashboard } from '@grafana/schema';

export interface DrawingRequest {
  dashboard: Dashboard;
  /** Base URL of a Prometheus. */
  prometheus: string;
  /** Unix time, seconds. */
  from: number;
  /** Unix time, seconds. */
  to: number;
  /** How often Prometheus scrapes, seconds: the setting of a data source that `$__rate_interval` follows. */
  scrapeInterval: number;
  /** Chosen values of variables; those that are not named have their first, or all of them. */
  variables: Record<string, string>;
  theme: 'dark' | 'light';
}

/** What was drawn, for the program that opened the page. */
export interface DrawnPanel {
  id: number;
  title: string;
  type: string;
  /** Texts of the values that a stat or a bar shows. */
  values: string[];
  /** Names of the series, as the legend has them. */
  series: string[];
  /** Empty, "No data", or what went wrong. */
  problem: string;
  /** All that stands in the panel. */
  text: string;
}

declare global {
  interface Window {
    drawingRequest: DrawingRequest;
    drawn?: DrawnPanel[];
    /** Where Grafana's components find their icons. */
    __grafana_public_path__: string;
  }
}
