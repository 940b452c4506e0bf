# upper on Perl's Net::Server::PreFork: a process a connection, 64 of them. Argument: the port.
package Upper;
use strict;
use warnings;
use base 'Net::Server::PreFork';

sub process_request {
    my ($self, $client) = @_;
    while (sysread $client, my $data, 65536) {
        $data = uc $data;
        while (length $data) {
            my $sent = syswrite $client, $data or return;
            substr($data, 0, $sent) = '';
        }
    }
}

# Once the children are there to accept.
sub run_n_children { my $self = shift; $self->SUPER::run_n_children(@_); print "ready\n"; }

$| = 1;
Upper->run(
    host => '127.0.0.1', port => $ARGV[0], proto => 'tcp', ipv => '4', listen => 1024, log_level => 0,
    min_servers => 64, max_servers => 66, min_spare_servers => 1, max_spare_servers => 65,
    max_requests => 1_000_000,
);
