"""What drivers for OpenStack's services share: one login, and one way in which a service's troubles are told.

`cloud.py` asks a service, with a time-out, retries and a breaker; `trouble.py` says what went wrong in our own words. No
driver of ours makes a connection but through this room's `Cloud`. It knows no service's resources and no driver; what a service's
answer means to a load balancer is the driver's to say. Open first: cloud.py."""
