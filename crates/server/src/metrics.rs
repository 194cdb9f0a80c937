//! What there is to count, as OpenMetrics text: every number is read from its owner when somebody asks.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use slung_engine::Engine;
use slung_host::{Deployment, Reactions, State};
use slung_net::{Counters, Memory};

use crate::site::{Counted, Deployments, ServerFeed};
use crate::watch::WatchCounters;

/// Renders everything.
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Those of a server.
    pub(crate) fn new(
        engine: Arc<Engine>,
        counters: Arc<Counters>,
        memory: Memory,
        workflows: Deployments,
        watched: Arc<WatchCounters>,
    ) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Owners { engine, counters, memory, workflows, watched }));
        Self(registry)
    }

    /// The text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0).expect("a string takes everything");
        text
    }
}

struct Owners {
    engine: Arc<Engine>,
    counters: Arc<Counters>,
    memory: Memory,
    workflows: Deployments,
    watched: Arc<WatchCounters>,
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owners")
    }
}

impl Collector for Owners {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.engine(&mut writer)?;
        self.network(&mut writer)?;
        self.live_streams(&mut writer)?;
        self.workflows(&mut writer)
    }
}

impl Owners {
    fn engine(&self, out: &mut Writer) -> fmt::Result {
        let stats = self.engine.stats();
        let (store, live) = (stats.store, stats.live);
        out.gauge("slung_store_writable", "1 while writes are accepted", self.engine.health().is_ok().into())?;
        out.gauge("slung_store_series", "Series that are known", store.series)?;
        out.gauge(
            "slung_store_points",
            "Points that are held; those replaced count until they are merged",
            store.points,
        )?;
        out.gauge("slung_store_log_bytes", "Length of the log", store.log_bytes)?;
        out.gauge("slung_store_pending_bytes", "Bytes that wait for the disk", store.pending_bytes)?;
        let help = "The last event, in the order of writes, that no crash takes back";
        out.gauge("slung_store_durable_through", help, store.durable_through)?;
        out.gauge("slung_store_memtable_bytes", "Memory for points that no segment has yet", store.memtable_bytes)?;
        out.gauge("slung_store_segments", "Segments", store.segments)?;
        out.gauge("slung_store_segment_bytes", "Length of the segments", store.segment_bytes)?;
        out.gauge("slung_store_damaged", "Files that are damaged, as far as is known", store.damaged)?;
        out.counter(
            "slung_store_upkeep_failures",
            "Times that merging or giving up old points failed; it is tried again",
            store.upkeep_failures,
        )?;
        out.counter("slung_store_flushes", "Times that points went from memory to segments", store.flushes)?;
        out.counter("slung_store_compactions", "Times that segments were merged", store.compactions)?;
        out.counter("slung_store_points_written", "Points that were taken", store.points_written)?;
        out.counter("slung_store_points_replaced", "Points that replaced one of the same time", store.points_replaced)?;
        out.counter("slung_store_busy", "Writes that found no room and had to be tried again", store.busy)?;
        out.counter("slung_store_commits", "Commits that were synced to disk", store.commits)?;
        out.counter("slung_store_sync_micros", "Time that syncing took, microseconds", store.sync_micros)?;
        out.counter("slung_queries", "Historical queries that were answered", stats.queries)?;
        out.counter(
            "slung_sums_saturated",
            "Sums that left the finite range and were answered with its end",
            stats.sums_saturated + live.sums_saturated,
        )?;
        out.gauge("slung_live_handles", "Live queries that are registered", live.handles as u64)?;
        out.gauge("slung_live_points", "Points that live windows keep", live.points as u64)?;
        out.gauge(
            "slung_live_windows",
            "Windows of live queries; those with the same query share one",
            live.windows as u64,
        )?;
        out.gauge("slung_live_window_bytes", "Memory of the windows", live.bytes as u64)?;
        let help = "Sliding windows that were too big to keep their points and have panes instead";
        out.gauge("slung_live_windows_in_panes", help, live.windows_in_panes as u64)?;
        let help = "Absolute windows that were too big to keep their points and count writes";
        out.gauge("slung_live_windows_counting_writes", help, live.windows_counting_writes as u64)?;
        let help = "Windows that may lack points, as what is stored of them was damaged when they were read";
        out.gauge("slung_live_windows_partial", help, live.windows_partial as u64)?;
        let help = "Times that a window gave up its points, or every other pane, for want of room";
        out.counter("slung_live_windows_given_up", help, live.given_up)?;
        out.counter("slung_live_late", "Events that were too old for a sliding window", live.late)?;
        let help = "Events ahead of the clock that waited for their time, as a clock among others runs ahead";
        out.counter("slung_live_ahead", help, live.ahead)?;
        let help = "Events ahead of the clock that were let go before their time for want of room";
        out.counter("slung_live_ahead_cut", help, live.ahead_cut)
    }

    fn network(&self, out: &mut Writer) -> fmt::Result {
        let stats = self.counters.snapshot();
        out.gauge("slung_connections", "Connections that are open", stats.connections_now)?;
        out.counter("slung_connections_accepted", "Connections that were accepted", stats.connections_total)?;
        out.counter("slung_connections_refused", "Connections that were one too many", stats.connections_refused)?;
        out.gauge("slung_producers", "Producers that are connected", stats.producers_now)?;
        out.counter("slung_messages", "Messages from producers, refused ones included", stats.messages)?;
        out.counter("slung_message_bytes", "Bytes in messages from producers", stats.message_bytes)?;
        out.counter("slung_events", "Events that producers sent and that were stored", stats.events)?;
        out.counter("slung_batches", "Writes that those events came in", stats.batches)?;
        out.counter(
            "slung_busy_waits",
            "How often a producer was not read because the disk was behind",
            stats.busy_waits,
        )?;
        out.counter("slung_acks", "Acks that were sent to producers; one may stand for many messages", stats.acks)?;
        let help = "Connections that were closed because they did not read what was sent to them";
        out.counter("slung_slow_readers", help, stats.slow_readers)?;
        let help = "Connections that were closed because nothing was heard of them";
        out.counter("slung_idle_closed", help, stats.idle_closed)?;
        let help = "Connections that were closed because what is in flight took as much memory as it may";
        out.counter("slung_no_memory", help, stats.no_memory)?;
        let help = "Connections that were one too many from their address";
        out.counter("slung_connections_refused_by_address", help, stats.connections_refused_by_address)?;
        let help =
            "Memory of what is in flight: unfinished messages, bodies of requests, messages that wait for producers";
        out.gauge("slung_in_flight_bytes", help, self.memory.used() as u64)?;
        let help = "Messages from producers that were refused as a whole";
        out.counters("slung_frames_refused", help, "reason", stats.frames_refused)?;
        out.counter("slung_writebacks", "Messages that were queued to producers", stats.writebacks_sent)?;
        let help = "Messages to producers that did not go out";
        out.counters("slung_writebacks_failed", help, "reason", stats.writebacks_failed)?;
        let requests =
            stats.http_requests.into_iter().map(|(route, status, n)| ([("route", route), ("status", status)], n));
        out.labelled("slung_http_requests", "HTTP requests that were answered", requests)?;
        let help = "HTTP requests that were answered with an error, by its code";
        out.counters("slung_http_refused", help, "code", stats.http_refused)?;
        out.counter("slung_http_events", "Events that came by HTTP and were stored", stats.http_events)?;
        let help = "Bytes of the bodies that events came in by HTTP, as they came";
        out.counter("slung_http_event_bytes", help, stats.http_event_bytes)?;
        let help = "Calls of workflows to the outside";
        out.counters("slung_outbound_calls", help, "outcome", stats.outbound_calls)
    }

    fn live_streams(&self, out: &mut Writer) -> fmt::Result {
        let stats = self.counters.snapshot();
        out.gauge("slung_live_streams", "Live queries and logs that are streamed over HTTP", stats.live_streams_now)?;
        out.counter("slung_live_streams_opened", "Streams that were begun", stats.live_streams_total)?;
        out.counter("slung_live_streams_refused", "Streams that were one too many", stats.live_streams_refused)?;
        out.counter(
            "slung_live_stream_updates",
            "Updates of live queries that went into a stream",
            stats.live_updates,
        )?;
        let merged = self.watched.merged.load(Relaxed);
        out.counter("slung_live_stream_merged", "Updates merged because the stream's reader is slow", merged)?;
        let dropped = self.watched.dropped.load(Relaxed);
        out.counter("slung_live_stream_dropped", "Raw updates dropped because the stream's reader is slow", dropped)
    }

    fn workflows(&self, out: &mut Writer) -> fmt::Result {
        let all = self.workflows.list();
        let counted =
            |it: &Deployment<ServerFeed>| it.feed.as_ref().map_or_else(Counted::default, |feed| feed.counted());
        let mut each = |name, help, value: &dyn Fn(&Deployment<ServerFeed>) -> u64| {
            out.counters(name, help, "workflow", all.iter().map(|it| (it.name.as_str(), value(it))))
        };
        each("slung_workflow_events", "Events given to the workflow", &|it| it.stats.events)?;
        each("slung_workflow_merged", "Updates merged because it is slow", &|it| counted(it).merged)?;
        each("slung_workflow_dropped", "Raw updates dropped because it is slow", &|it| counted(it).dropped)?;
        each("slung_workflow_late", "Events that were older than a window of it", &|it| counted(it).late)?;
        each("slung_workflow_busy_micros", "Time that it ran, microseconds", &|it| {
            u64::try_from(it.stats.busy.as_micros()).unwrap_or(u64::MAX)
        })?;
        let help = "Times that the workflow was moved to threads of low priority, as it computed for long in one go";
        each("slung_workflow_demotions", help, &|it| it.stats.demotions)?;
        let help = "Time that the workflow was paused, as it was over its share of the processor or its host calls, microseconds";
        each("slung_workflow_throttled_micros", help, &|it| {
            u64::try_from(it.stats.throttled.as_micros()).unwrap_or(u64::MAX)
        })?;
        let help = "Events of the workflow that were refused because they were too many in a second";
        each("slung_workflow_writes_refused", help, &|it| it.stats.writes_refused)?;
        let help = "HTTP requests of the workflow that were refused because they were too many in a second";
        each("slung_workflow_http_calls_refused", help, &|it| it.stats.http_calls_refused)?;
        let help = "Times that the workflow was started again after it had failed";
        each("slung_workflow_restarts", help, &|it| it.stats.restarts)?;
        let help = "Log lines of the workflow that were too many";
        each("slung_workflow_log_lines_dropped", help, &|it| it.stats.log_lines_dropped)?;

        let calls = all.iter().flat_map(|it| {
            it.stats.calls.iter().flat_map(move |calls| {
                let row = move |outcome, n| {
                    ([("workflow", it.name.as_str()), ("function", calls.function.name()), ("outcome", outcome)], n)
                };
                [row("ok", calls.ok), row("failed", calls.failed)]
            })
        });
        out.labelled("slung_workflow_calls", "Calls of host functions", calls)?;
        let mut each = |name, help, value: &dyn Fn(&Deployment<ServerFeed>) -> u64| {
            out.gauges(name, help, "workflow", all.iter().map(|it| (it.name.as_str(), value(it))))
        };
        let help = "1 while the workflow runs";
        each("slung_workflow_running", help, &|it| (it.state == Some(State::Running)).into())?;
        each("slung_workflow_version", "Version of the workflow; 0 where it is configured with a file", &|it| {
            it.version.unwrap_or(0)
        })?;
        let help = "Since when the workflow runs, or runs again; 0 while it does not";
        each("slung_workflow_uptime_seconds", help, &|it| it.stats.uptime.unwrap_or_default().as_secs())?;
        each("slung_workflow_memory_bytes", "Linear memory of the workflow", &|it| it.stats.memory_bytes)?;
        let help = "The most linear memory that the workflow had, before it was started again as well";
        each("slung_workflow_memory_most_bytes", help, &|it| it.stats.memory_bytes_max)?;
        each("slung_workflow_waiting", "Updates that wait for the workflow", &|it| counted(it).waiting)?;
        let help = "From the arrival of an event to what the workflow does about it, or else to its next poll";
        let reactions = all.iter().map(|it| (it.name.as_str(), &it.stats.reactions));
        out.reactions("slung_workflow_reaction_seconds", help, reactions)
    }
}

/// The units that there are, by how names end with them.
static UNITS: LazyLock<[(&str, Unit); 3]> = LazyLock::new(|| {
    [("_bytes", Unit::Bytes), ("_seconds", Unit::Seconds), ("_micros", Unit::Other("micros".to_owned()))]
});

/// The ends of the buckets of reactions, microseconds: powers of four from 16 µs to 16 s, where [`Reactions::below`] is exact.
const REACTION_MICROS: [u64; 11] =
    [1 << 4, 1 << 6, 1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24];

/// Writes metrics, each with its help. Counters get the suffix `_total` from the format.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// Where a name ends with a unit, the format has a line for that, and adds it to the rest of the name.
    fn descriptor<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let with_unit = UNITS.iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, unit)));
        match with_unit {
            Some((rest, unit)) => self.0.encode_descriptor(rest, help, Some(unit), kind),
            None => self.0.encode_descriptor(name, help, None, kind),
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.descriptor(name, help, metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.descriptor(name, help, metric.metric_type())?)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &'l str,
        rows: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        self.labelled(name, help, rows.into_iter().map(|(row, value)| ([(label, row)], value)))
    }

    fn labelled<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let metric = ConstCounter::new(0_u64);
        let mut family = self.descriptor(name, help, metric.metric_type())?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &'l str,
        rows: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let metric = ConstGauge::new(0_u64);
        let mut family = self.descriptor(name, help, metric.metric_type())?;
        for (row, value) in rows {
            ConstGauge::new(value).encode(family.encode_family(&[(label, row)])?)?;
        }
        Ok(())
    }

    fn reactions<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (&'l str, &'l Reactions)>,
    ) -> fmt::Result {
        let mut family = self.descriptor(name, help, MetricType::Histogram)?;
        for (row, reactions) in rows {
            // Each bucket by itself: the encoder adds up.
            let mut before = 0;
            let mut bucket = |end, below| (end, below - std::mem::replace(&mut before, below));
            let mut buckets: Vec<_> = REACTION_MICROS
                .map(Duration::from_micros)
                .map(|end| bucket(end.as_secs_f64(), reactions.below(end)))
                .into();
            buckets.push(bucket(f64::INFINITY, reactions.count()));
            let labels = [("workflow", row)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(
                reactions.total().as_secs_f64(),
                reactions.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
