// The numbered files of this folder, embedded in the binary as they are, so that `martlet migrate` needs nothing beside
// itself. The files are the truth; `psql -f` applies the same ones.

/// One numbered file.
package struct Migration: Sendable {
  package let version: Int
  /// As in the file's name: `0001_tables`.
  package let name: String
  package let sql: String

  private init(_ version: Int, _ name: String, _ bytes: [UInt8]) {
    self.version = version
    self.name = name
    self.sql = String(decoding: bytes, as: UTF8.self)
  }

  /// In the order in which they are applied. The build names a resource after its file, with the first digit as `_`.
  package static let all: [Migration] = [
    Migration(1, "0001_tables", PackageResources._001_tables_sql),
    Migration(2, "0002_endpoints", PackageResources._002_endpoints_sql),
    Migration(3, "0003_publish", PackageResources._003_publish_sql),
    Migration(4, "0004_lease", PackageResources._004_lease_sql),
    Migration(5, "0005_filter", PackageResources._005_filter_sql),
    Migration(6, "0006_order", PackageResources._006_order_sql),
    Migration(7, "0007_cut", PackageResources._007_cut_sql),
    Migration(8, "0008_rate", PackageResources._008_rate_sql),
    Migration(9, "0009_claim", PackageResources._009_claim_sql),
    Migration(10, "0010_health", PackageResources._010_health_sql),
    Migration(11, "0011_record", PackageResources._011_record_sql),
    Migration(12, "0012_maintain", PackageResources._012_maintain_sql),
    Migration(13, "0013_operate", PackageResources._013_operate_sql),
    Migration(14, "0014_reconcile", PackageResources._014_reconcile_sql),
    Migration(15, "0015_roles", PackageResources._015_roles_sql),
    Migration(16, "0016_replay", PackageResources._016_replay_sql),
    Migration(17, "0017_credentials", PackageResources._017_credentials_sql),
    Migration(18, "0018_transform", PackageResources._018_transform_sql),
    Migration(19, "0019_prove", PackageResources._019_prove_sql),
    Migration(20, "0020_tenants", PackageResources._020_tenants_sql),
  ]
}
