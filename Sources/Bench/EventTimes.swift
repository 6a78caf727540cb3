import Synchronization

/// When each of many events, numbered from 0, was published and when it arrived, in nanoseconds of CLOCK_MONOTONIC. All the
/// room is there from the beginning: growing in the middle of a measurement would be measured.
final class EventTimes: Sendable {
  struct Times {
    var due: [UInt64]
    var isOnTime: [Bool]
    var began: [UInt64]
    /// 0: not committed.
    var committed: [UInt64]
    /// The first arrival; 0: none.
    var arrived: [UInt64]
    var repeated = 0
    /// Arrivals of what was never published.
    var unknown = 0
  }

  private let published: Mutex<Times>
  /// Apart, so that the receiver and the publishers do not wait for each other.
  private let arrivals: Mutex<(first: [UInt64], repeated: Int, unknown: Int)>

  init(count: Int) {
    let none = [UInt64](repeating: 0, count: count)
    published = Mutex(Times(due: none, isOnTime: none.map { _ in false }, began: none, committed: none, arrived: []))
    arrivals = Mutex((none, 0, 0))
  }

  func published(_ number: Int, _ event: Published) {
    published.withLock { times in
      times.due[number] = event.due
      times.isOnTime[number] = event.isOnTime
      times.began[number] = event.began
      times.committed[number] = event.committed
    }
  }

  func arrived(_ number: Int?, at moment: UInt64) {
    arrivals.withLock { arrivals in
      guard let number, arrivals.first.indices.contains(number) else {
        arrivals.unknown += 1
        return
      }
      if arrivals.first[number] == 0 { arrivals.first[number] = moment } else { arrivals.repeated += 1 }
    }
  }

  func hasArrived(_ number: Int) -> Bool { arrivals.withLock { $0.first[number] != 0 } }

  var all: Times {
    var times = published.withLock { $0 }
    arrivals.withLock { (times.arrived, times.repeated, times.unknown) = ($0.first, $0.repeated, $0.unknown) }
    return times
  }
}
