/// What a dispatcher's decisions depend on besides what they are told: time, chance, and how a thread waits. A simulation
/// brings its own.
struct Surroundings: Sendable {
  /// Time on this host's monotonic clock since some fixed moment.
  var now: @Sendable () -> Duration
  /// Uniform in 0..<1.
  var random: @Sendable () -> Double
  var bell: @Sendable () -> Bell

  static func host() -> Surroundings {
    let origin = ContinuousClock.now
    return Surroundings(
      now: { ContinuousClock.now - origin },
      random: { Double.random(in: 0..<1) },
      bell: { Bell() }
    )
  }
}
