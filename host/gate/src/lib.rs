//! Who is calling and what he may do: principal, tenant context, policy, permit, destination, quotas. Pure.
