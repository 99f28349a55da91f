//! Numbers of one kind from several rounds: the median and the spread.

/// In the order of the rounds.
#[derive(Debug, Clone, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// NaN when there are none.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// Round by round, so that a machine that changes its pace changes both.
    pub fn ratio(&self, control: &Self) -> Self {
        Self(self.0.iter().zip(&control.0).map(|(own, control)| own / control).collect())
    }

    /// By how much the median of the second half differs from that of the first: 0.1 is ten percent.
    pub fn drift(&self) -> f64 {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        let (first, second) = (Self(first.to_vec()).median(), Self(second.to_vec()).median());
        (second / first - 1.0).abs()
    }
}

#[cfg(test)]
mod tests;
