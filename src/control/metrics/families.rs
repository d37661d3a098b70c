//! Families of series, one line each. A counter is written like a gauge, under its full name: the encoder names
//! counters for a format in which a family and its series have different names.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::stats::Reading;

/// The families of one scrape.
pub(super) struct Families<'e>(DescriptorEncoder<'e>);

impl<'e> Families<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// Writes one number that only grows.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeGaugeValue + Copy,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter)?.encode_gauge(&value)
    }

    /// Writes a number that only grows, per set of labels.
    pub(super) fn counters<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        write_all(&mut self.family(name, help, MetricType::Counter)?, series)
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeGaugeValue + Copy,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Writes a number per set of labels.
    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        write_all(&mut self.family(name, help, MetricType::Gauge)?, series)
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, reading: &Reading) -> fmt::Result {
        write_histogram(&mut self.family(name, help, MetricType::Histogram)?, reading)
    }

    /// Writes a histogram per set of labels.
    pub(super) fn histograms<'r, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, &'r Reading)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        series
            .into_iter()
            .try_for_each(|(labels, reading)| write_histogram(&mut family.encode_family(&labels)?, reading))
    }

    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn write_all<L: EncodeLabelSet, V: EncodeGaugeValue>(
    family: &mut MetricEncoder,
    series: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    series.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
}

fn write_histogram(encoder: &mut MetricEncoder, reading: &Reading) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = reading.buckets().collect();
    encoder.encode_histogram::<NoLabelSet>(reading.sum.as_secs_f64(), reading.count(), &buckets, None)
}

pub(super) fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}
