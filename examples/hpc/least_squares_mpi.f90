! Federated least squares in one round of Bayesian ADMM, from Fortran over MPI; see least_squares_mpi.c.
!
!     dir=$(python -m badmm_kernels --includedir)
!     mpicc -O2 -c -I$dir $dir/badmm_kernels.c
!     mpifort -O2 $dir/badmm_kernels.f90 least_squares_mpi.f90 badmm_kernels.o -o least_squares_mpi_fortran -lm
!     mpiexec -n 4 ./least_squares_mpi_fortran
program least_squares_mpi
  use, intrinsic :: iso_c_binding, only: dp => c_double
  use, intrinsic :: iso_fortran_env, only: error_unit
  use mpi
  use badmm_kernels
  implicit none
  integer, parameter :: clients = 5, rows = 40, d = 12
  ! lambda = (precision * mean, precision): column 0 and columns 1 to d
  real(dp), dimension(d, 0:d) :: prior, server, total, gradient, client, dual, share, direct
  real(dp), parameter :: rho = 1.0_dp / clients, alpha = 1.0_dp / (1.0_dp + rho * clients), damping = 1.0_dp
  real(dp) :: error
  integer :: i, j, k, rank, ranks, status

  call MPI_Init(status)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, status)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, status)

  prior = 0
  do i = 1, d
    prior(i, i) = 0.5_dp
  end do
  server = prior
  total = 0
  do k = clients * rank / ranks + 1, clients * (rank + 1) / ranks ! the clients that live here
    gradient = 0
    call add_rows((k - 1) * rows, k * rows, -1.0_dp, gradient)
    dual = 0
    do j = 0, d
      do i = 1, d
        client(i, j) = badmm_round_client_map(server(i, j), dual(i, j), gradient(i, j), rho)
        dual(i, j) = badmm_round_dual_update(dual(i, j), server(i, j), client(i, j), rho, damping)
        share(i, j) = badmm_round_server_contribution(client(i, j), dual(i, j), alpha, real(clients, dp))
      end do
    end do
    total = total + share
  end do
  call MPI_Allreduce(MPI_IN_PLACE, total, size(total), MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, status)
  do j = 0, d
    do i = 1, d
      server(i, j) = badmm_round_server_update(prior(i, j), total(i, j), alpha)
    end do
  end do

  direct = prior
  call add_rows(0, clients * rows, 1.0_dp, direct)
  error = max(maxval(abs(mean_of(server) - mean_of(direct))) / maxval(abs(mean_of(direct))), &
              maxval(abs(server - direct)) / maxval(abs(direct)))
  if (.not. error <= 1.0e-12_dp) then
    write (error_unit, '(a, es10.3)') &
      'least_squares: expected the pooled solution to a relative 1e-12, got an error of ', error
    call MPI_Abort(MPI_COMM_WORLD, 1, status)
  end if
  if (rank == 0) print '(a, i0, a, es8.1)', 'Fortran, MPI, ', ranks, ' ranks: relative error after one round ', error
  call MPI_Finalize(status)

contains

  pure function features(row) result(x)
    integer, intent(in) :: row
    real(dp) :: x(d)
    integer :: n
    x = [(sin(0.37_dp * (row + 1) * n), n = 1, d)]
  end function features

  !> total = total + sign * (b, H) of rows [first, last)
  subroutine add_rows(first, last, sign, sum)
    integer, intent(in) :: first, last
    real(dp), intent(in) :: sign
    real(dp), intent(inout) :: sum(d, 0:d)
    real(dp) :: x(d), y
    integer :: row, n
    do row = first, last - 1
      x = features(row)
      y = 0.1_dp * cos(3.0_dp * row) + dot_product(x, [(real(n, dp) / d, n = 1, d)])
      sum(:, 0) = sum(:, 0) + sign * y * x
      do n = 1, d
        sum(:, n) = sum(:, n) + sign * x(n) * x
      end do
    end do
  end subroutine add_rows

  !> S^-1 xi by a Cholesky factorisation
  pure function mean_of(lambda) result(mean)
    real(dp), intent(in) :: lambda(d, 0:d)
    real(dp) :: mean(d), factor(d, d)
    integer :: n
    factor = lambda(:, 1:d)
    do n = 1, d
      factor(n:, n) = (factor(n:, n) - matmul(factor(n:, :n - 1), factor(n, :n - 1)))
      factor(n:, n) = factor(n:, n) / sqrt(factor(n, n))
    end do
    mean = lambda(:, 0)
    do n = 1, d
      mean(n) = (mean(n) - dot_product(factor(n, :n - 1), mean(:n - 1))) / factor(n, n)
    end do
    do n = d, 1, -1
      mean(n) = (mean(n) - dot_product(factor(n + 1:, n), mean(n + 1:))) / factor(n, n)
    end do
  end function mean_of

end program least_squares_mpi
