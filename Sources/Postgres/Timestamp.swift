/// An instant as PostgreSQL keeps it. Only ever compared and given back: time in decisions is the server's.
package struct Timestamp: Sendable, Hashable, Comparable {
  /// The smallest and the largest value are PostgreSQL's `-infinity` and `infinity`.
  package var microsecondsSince2000: Int64
  package init(microsecondsSince2000: Int64) { self.microsecondsSince2000 = microsecondsSince2000 }
  package static func < (a: Timestamp, b: Timestamp) -> Bool { a.microsecondsSince2000 < b.microsecondsSince2000 }

  package var isFinite: Bool { microsecondsSince2000 != .min && microsecondsSince2000 != .max }

  /// Microseconds since 1970-01-01T00:00:00Z; `-infinity` stays the smallest, `infinity` the largest value.
  package var microsecondsSince1970: Int64 {
    isFinite ? Self.sum(microsecondsSince2000, 946_684_800_000_000) : microsecondsSince2000
  }

  /// An infinite one stays as it is; what leaves the range becomes infinite.
  package func adding(_ duration: Duration) -> Timestamp {
    guard isFinite else { return self }
    let (seconds, attoseconds) = duration.components
    let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
    guard !overflow else { return Timestamp(microsecondsSince2000: seconds < 0 ? .min : .max) }
    return Timestamp(
      microsecondsSince2000: Self.sum(Self.sum(microsecondsSince2000, whole), attoseconds / 1_000_000_000_000)
    )
  }

  private static func sum(_ a: Int64, _ b: Int64) -> Int64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? (b < 0 ? .min : .max) : sum
  }
}
