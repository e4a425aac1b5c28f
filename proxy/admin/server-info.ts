/** `/ready`, `/server_info`, `/memory`, `/init_dump`, `/runtime`: how the process is. */
import { json, text } from './endpoint.ts';
import type { AdminContext, AdminEndpoint } from './endpoint.ts';
import type { JsonObject } from '../../xds/snapshot.ts';

export const ready: AdminEndpoint = {
  path: '/ready',
  help: 'print server state, return 200 if LIVE, otherwise return 503',
  mutates: false,
  handle: (_request, context) => text(`${context.state()}\n`, context.state() === 'LIVE' ? 200 : 503),
};

export const serverInfo: AdminEndpoint = {
  path: '/server_info',
  help: 'print server version/status information',
  mutates: false,
  handle: (_request, context) => {
    const savedMs = context.staleSavedMs();
    const uptimeSeconds = Math.floor((context.clock.wallMs() - context.startedMs) / 1000);
    return json({
      version: context.version,
      state: context.state(),
      uptime_current_epoch: `${uptimeSeconds}s`,
      uptime_all_epochs: `${uptimeSeconds}s`,
      hot_restart_version: 'disabled',
      command_line_options: commandLine(context),
      node: context.node,
      ...(savedMs > 0 ? { config_stale: true, config_saved: new Date(savedMs).toISOString() } : {}),
    });
  },
};

export const memory: AdminEndpoint = {
  path: '/memory',
  help: 'print current allocation/heap usage',
  mutates: false,
  handle: () => {
    const usage = process.memoryUsage();
    return json({
      allocated: String(usage.heapUsed + usage.external),
      heap_size: String(usage.heapTotal),
      pageheap_unmapped: '0',
      pageheap_free: String(usage.heapTotal - usage.heapUsed),
      total_thread_cache: '0',
      total_physical_bytes: String(usage.rss),
    });
  },
};

export const initDump: AdminEndpoint = {
  path: '/init_dump',
  help: 'dump current init manager information (what the start still waits for)',
  mutates: false,
  handle: (_request, context) =>
    json(
      context.unready().length === 0
        ? {}
        : { unready_targets_dumps: context.unready().map(({ name, targets }) => ({ name, target_names: targets })) },
    ),
};

export const runtime: AdminEndpoint = {
  path: '/runtime',
  help: 'print runtime values',
  mutates: false,
  handle: (_request, context) => {
    const entries: Record<string, JsonObject> = {};
    for (const { key, values, final } of context.layers.entries()) entries[key] = { final_value: final, layer_values: values };
    return json({ layers: context.layers.names, entries });
  },
};

export const hotRestartVersion: AdminEndpoint = {
  path: '/hot_restart_version',
  help: 'print the hot restart compatibility version',
  mutates: false,
  handle: () => text('disabled'),
};

/** Envoy's CommandLineOptions: tools look for its keys, also for those that are knobs of things that do not exist here. */
function commandLine(context: AdminContext): JsonObject {
  const { options } = context;
  return {
    base_id: '0',
    base_id_path: '',
    use_dynamic_base_id: false,
    skip_hot_restart_on_no_parent: false,
    skip_hot_restart_parent_stats: false,
    concurrency: options.concurrency,
    config_path: options.configPath ?? '',
    config_yaml: options.configYaml ?? '',
    allow_unknown_static_fields: options.allowUnknownStaticFields,
    reject_unknown_dynamic_fields: options.rejectUnknownDynamicFields,
    ignore_unknown_dynamic_fields: false,
    skip_deprecated_logs: false,
    admin_address_path: options.adminAddressPath ?? '',
    local_address_ip_version: 'v4',
    log_level: options.logLevel,
    component_log_level: '',
    log_format_escaped: false,
    log_path: options.logPath ?? '',
    enable_fine_grain_logging: false,
    log_stacktrace_single_entry: false,
    service_cluster: options.serviceCluster,
    service_node: options.serviceNode,
    service_zone: options.serviceZone,
    drain_time: `${options.drainTimeMs / 1000}s`,
    drain_strategy: options.drainStrategy === 'immediate' ? 'Immediate' : 'Gradual',
    parent_shutdown_time: `${options.parentShutdownTimeMs / 1000}s`,
    mode: 'Serve',
    disabled_extensions: [],
    enable_mutex_tracing: false,
    enable_core_dump: false,
    restart_epoch: 0,
    disable_hot_restart: true,
    cpuset_threads: false,
    socket_mode: 0,
    stats_tag: [],
    file_flush_interval: `${options.fileFlushIntervalMs / 1000}s`,
    file_flush_min_size: 0,
  };
}
