import Glibc

/// A point in time that never goes back: nanoseconds since some moment before the process began.
///
/// Durations of exchanges are local matters, so the host's clock is good enough here; decisions about deliveries take
/// their time from PostgreSQL.
struct MonotonicInstant: Comparable {
  var nanoseconds: Int64

  static func now() -> MonotonicInstant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return MonotonicInstant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }

  static func < (left: MonotonicInstant, right: MonotonicInstant) -> Bool { left.nanoseconds < right.nanoseconds }

  func advanced(byMilliseconds milliseconds: Int) -> MonotonicInstant {
    MonotonicInstant(nanoseconds: nanoseconds + Int64(milliseconds) * 1_000_000)
  }

  func duration(to end: MonotonicInstant) -> Duration { .nanoseconds(end.nanoseconds - nanoseconds) }

  /// Rounded up, so that waiting for it does not wake too early; never negative.
  func milliseconds(until end: MonotonicInstant) -> Int {
    let difference = end.nanoseconds - nanoseconds
    return difference <= 0 ? 0 : Int((difference + 999_999) / 1_000_000)
  }
}

extension Duration {
  /// As libcurl takes a timeout: at least 1, because it reads 0 as "none", and small enough to add to a clock.
  var curlMilliseconds: Int {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 1 }
    guard seconds < 1_000_000 else { return 1_000_000_000 }
    return max(1, Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000))
  }
}
