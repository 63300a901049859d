//! Medians, and how far the rounds of a measurement lie apart.

/// The middle of the values, or the mean of the two in the middle; 0 if there are none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or_default();
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|index| values.get(index));
    lower.map_or(upper, |lower| (lower + upper) / 2.0)
}

/// The smallest and the largest value; both 0 if there are none.
pub(super) fn range(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let both = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
    values.into_iter().map(|value| (value, value)).reduce(|a, b| both(a, b.0)).unwrap_or_default()
}

/// The distance from the smallest to the largest value, in percent of the median.
pub(super) fn spread_percent(values: &[f64]) -> f64 {
    let (low, high) = range(values.iter().copied());
    let middle = median(values.iter().copied());
    if middle == 0.0 { 0.0 } else { (high - low) / middle * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([10.0, 500.0, 30.0]), 30.0);
        assert_eq!(median([10.0, 20.0]), 15.0);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn the_spread_is_told_in_percent_of_the_median() {
        assert_eq!(range([3.0, 1.0, 2.0]), (1.0, 3.0));
        assert_eq!(spread_percent(&[90.0, 100.0, 110.0]), 20.0);
        assert_eq!(spread_percent(&[7.0]), 0.0);
        assert_eq!(spread_percent(&[]), 0.0);
    }
}
