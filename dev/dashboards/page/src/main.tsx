/** Draws one dashboard on Grafana's grid: the panels, their data from Prometheus, and what is chosen above them. */

import { createTheme, dateTime, LoadingState, ThemeContext, type DataFrame, type TimeRange } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import type { Panel, RowPanel } from '@grafana/schema';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { useEffect, type CSSProperties, type JSX } from 'react';
import { createRoot } from 'react-dom/client';

import { prepare } from './fields.ts';
import { displayed, seriesNames, Visualization } from './panels.tsx';
import { query, type Target } from './prometheus.ts';
import type { DrawingRequest, DrawnPanel } from './request.ts';
import { chooseVariables, fill, stepOf, timeVariables, type Chosen } from './variables.ts';

/** Grafana's grid: columns, and CSS pixels of a unit of height and of the space between panels. */
const COLUMNS = 24;
const UNIT = 30;
const SPACE = 8;
/** CSS pixels around the dashboard. */
const MARGIN = 16;
/** Of Inter, a font with all of them in one file. */
const FONT_WEIGHTS = ['400', '500'];

const request: DrawingRequest = window.drawingRequest;
const theme = createTheme({ colors: { mode: request.theme } });
const range: TimeRange = {
  from: dateTime(request.from * 1000),
  to: dateTime(request.to * 1000),
  raw: { from: dateTime(request.from * 1000), to: dateTime(request.to * 1000) },
};

const NO_DATA = 'No data';
const MESSAGE: CSSProperties = { height: '100%', display: 'grid', placeItems: 'center', ...theme.typography.body };

interface Ready {
  panel: Panel;
  frames: DataFrame[];
  problem: string;
}

type Place = { left: number; top: number; width: number; height: number };

function placeOf(panel: Panel | RowPanel): Place {
  const { x, y, w, h } = panel.gridPos!;
  const column = (document.documentElement.clientWidth - 2 * MARGIN + SPACE) / COLUMNS;
  return {
    left: x * column,
    top: y * (UNIT + SPACE),
    width: w * column - SPACE,
    height: h * (UNIT + SPACE) - SPACE,
  };
}

function ask(target: Target, width: number, chosen: Chosen[]): Promise<DataFrame[]> {
  const step = stepOf(range, width, request.scrapeInterval, target.interval);
  const values = timeVariables(request, step, target.interval);
  chosen.forEach((item) => values.set(item.name, item.value));
  return query(request, { ...target, expr: fill(target.expr, values) }, step);
}

async function read(panel: Panel, chosen: Chosen[]): Promise<Ready> {
  try {
    const targets = (panel.targets ?? []) as unknown as Target[];
    const answers = await Promise.all(targets.map((target) => ask(target, placeOf(panel).width, chosen)));
    const frames = await prepare(panel, answers.flat(), theme);
    const found = frames.some((frame) => frame.length > 0);
    return { panel, frames, problem: found ? '' : NO_DATA };
  } catch (error) {
    return { panel, frames: [], problem: String(error) };
  }
}

function report({ panel, frames, problem }: Ready): DrawnPanel {
  const numbers = panel.type === 'stat' || panel.type === 'bargauge';
  const shown = numbers && !problem ? displayed(panel, frames, theme) : [];
  return {
    id: panel.id!,
    title: panel.title ?? '',
    type: panel.type,
    values: shown.map(({ display }) => `${display.prefix ?? ''}${display.text}${display.suffix ?? ''}`),
    series: seriesNames(frames),
    problem,
    text: document.querySelector<HTMLElement>(`[data-panel="${panel.id}"]`)?.innerText ?? '',
  };
}

/** Wait until fonts are there and charts, which are drawn in the frames after they know their sizes, are drawn. */
async function drawnFrames(): Promise<void> {
  await document.fonts.ready;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}

function Page({ chosen, ready }: { chosen: Chosen[]; ready: Ready[] }): JSX.Element {
  const rows = request.dashboard.panels!.filter((panel): panel is RowPanel => panel.type === 'row');
  const places = request.dashboard.panels!.map((panel) => placeOf(panel as Panel));
  const height = Math.max(...places.map((place) => place.top + place.height));
  useEffect(() => {
    void drawnFrames().then(() => (window.drawn = ready.map(report)));
  }, [ready]);
  return (
    <main style={{ padding: MARGIN }}>
      <Header chosen={chosen} />
      <div style={{ position: 'relative', height }}>
        {rows.map((row) => (
          <h2 key={row.id} style={{ position: 'absolute', ...placeOf(row), ...theme.typography.h5, lineHeight: '30px' }}>
            {row.title}
          </h2>
        ))}
        {ready.map((item) => (
          <section
            key={item.panel.id}
            aria-label={item.panel.title}
            data-panel={item.panel.id}
            style={{ position: 'absolute', ...placeOf(item.panel) }}
          >
            <Framed {...item} />
          </section>
        ))}
      </div>
    </main>
  );
}

function Framed({ panel, frames, problem }: Ready): JSX.Element {
  const { width, height } = placeOf(panel);
  return (
    <PanelChrome
      width={width}
      height={height}
      title={panel.title}
      description={panel.description}
      loadingState={LoadingState.Done}
      padding={panel.type === 'table' ? 'none' : 'md'}
    >
      {(innerWidth, innerHeight) =>
        problem ? (
          <p role="alert" style={MESSAGE}>
            {problem === NO_DATA ? (panel.fieldConfig?.defaults.noValue ?? NO_DATA) : problem}
          </p>
        ) : (
          <Visualization panel={panel} frames={frames} range={range} width={innerWidth} height={innerHeight} />
        )
      }
    </PanelChrome>
  );
}

function Header({ chosen }: { chosen: Chosen[] }): JSX.Element {
  const line: CSSProperties = { display: 'flex', gap: 24, alignItems: 'baseline', marginBottom: SPACE };
  const clock = (seconds: number) => dateTime(seconds * 1000).utc().format('YYYY-MM-DD HH:mm:ss');
  return (
    <header style={line}>
      <h1 style={{ ...theme.typography.h3, margin: 0 }}>{request.dashboard.title}</h1>
      {chosen.map((item) => (
        <span key={item.name}>
          <span style={{ color: theme.colors.text.secondary }}>{item.label}: </span>
          {item.text}
        </span>
      ))}
      <span style={{ marginLeft: 'auto', color: theme.colors.text.secondary }}>
        {clock(request.from)} to {clock(request.to)} UTC
      </span>
    </header>
  );
}

/** Charts measure their texts once: the fonts must be there before. */
async function loadFonts(): Promise<void> {
  await Promise.all(
    FONT_WEIGHTS.map((weight) =>
      new FontFace('Inter', 'url(fonts/inter/Inter-Regular.woff2)', { weight }).load().then((font) => {
        document.fonts.add(font);
      }),
    ),
  );
}

async function main(): Promise<void> {
  await loadFonts();
  await initPluginTranslations('grafana');
  const chosen = await chooseVariables(request);
  const panels = request.dashboard.panels!.filter((panel): panel is Panel => panel.type !== 'row');
  const ready = await Promise.all(panels.map((panel) => read(panel, chosen)));
  createRoot(document.getElementById('root')!).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Page chosen={chosen} ready={ready} />
    </ThemeContext.Provider>,
  );
}

void main();
