/** How a panel's settings reach its fields: what Grafana does between a data source and a panel. */

import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  FieldConfigOptionsRegistry,
  FieldConfigProperty,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
  type DataFrame,
  type DataTransformerConfig,
  type DataTransformerInfo,
  type FieldConfigPropertyItem,
  type FieldConfigSource,
  type GrafanaTheme2,
} from '@grafana/data';
import type { Panel } from '@grafana/schema';
import { lastValueFrom } from 'rxjs';

export const TIME_ZONE = 'utc';

/** What Grafana's time series panel sets where a dashboard says nothing. */
const TIME_SERIES_DEFAULTS = {
  axisBorderShow: false,
  axisGridShow: true,
  axisPlacement: 'auto',
  drawStyle: 'line',
  fillOpacity: 0,
  gradientMode: 'none',
  lineInterpolation: 'linear',
  lineWidth: 1,
  pointSize: 5,
  showPoints: 'auto',
  spanNulls: false,
};

standardTransformersRegistry.setInit(() =>
  // One of them is listed under an old name too.
  [...new Set<DataTransformerInfo>(Object.values(standardTransformers))].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation: () => Promise.resolve(transformation),
    editor: () => null,
    imageDark: '',
    imageLight: '',
  })),
);

function property(id: string, isCustom: boolean): FieldConfigPropertyItem {
  const nothing = () => null;
  return {
    id: isCustom ? `custom.${id}` : id,
    path: id,
    name: id,
    isCustom,
    editor: nothing,
    override: nothing,
    process: (value: unknown) => value,
    shouldApply: () => true,
  };
}

/** Return a panel's frames after its transformations, with units, colours, thresholds and names. */
export async function prepare(panel: Panel, frames: DataFrame[], theme: GrafanaTheme2): Promise<DataFrame[]> {
  const config = fieldConfigOf(panel);
  const properties = [
    ...Object.values(FieldConfigProperty).map((id) => property(id, false)),
    ...customIds(config).map((id) => property(id, true)),
  ];
  const transformations = (panel.transformations ?? []) as DataTransformerConfig[];
  const transformed = await lastValueFrom(
    transformDataFrame(transformations, frames, { interpolate: (text: string) => text }),
  );
  const prepared = applyFieldOverrides({
    data: transformed,
    fieldConfig: config,
    fieldConfigRegistry: new FieldConfigOptionsRegistry(() => properties),
    replaceVariables: (text: string) => text,
    theme,
    timeZone: TIME_ZONE,
  });
  cacheFieldDisplayNames(prepared);
  return prepared;
}

/** Return the names of the settings that only a panel's kind knows. */
function customIds({ defaults, overrides }: FieldConfigSource): string[] {
  const overridden = overrides.flatMap((rule) => rule.properties.map(({ id }) => id));
  const custom = overridden.filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length));
  return [...new Set([...Object.keys(defaults.custom ?? {}), ...custom])];
}

/** Return a panel's field settings with what Grafana's panel would add to them. */
export function fieldConfigOf(panel: Panel): FieldConfigSource {
  const config = structuredClone(panel.fieldConfig ?? { defaults: {}, overrides: [] }) as FieldConfigSource;
  // JSON has no infinity: the lowest step is written as null.
  for (const step of config.defaults.thresholds?.steps ?? []) {
    step.value ??= -Infinity;
  }
  if (panel.type === 'timeseries') {
    config.defaults.custom = { ...TIME_SERIES_DEFAULTS, ...config.defaults.custom };
  }
  return config;
}
